"""SQLAlchemy's types in PostgreSQL's words, in which `schema` compares them with declared ones."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pipelines.extract.schema import SourceColumn

_BYTES = {
    "bytea", "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "large_binary"
}  # fmt: skip
_WORDS: tuple[tuple[type[Any], str, str], ...] = (
    (sa.Boolean, "bool", "B"),
    (sa.SmallInteger, "int2", "N"),
    (sa.BigInteger, "int8", "N"),
    (sa.Integer, "int4", "N"),
    (sa.DateTime, "timestamptz", "D"),
    (sa.Date, "date", "D"),
    (sa.Float, "float8", "N"),
    (sa.Numeric, "numeric", "N"),
    (sa.ARRAY, "array", "A"),
    (sa.String, "text", "S"),
)
"""Type, word and category; the first that fits counts."""


def in_words(kind: Any) -> SourceColumn:
    """A column of a SQLAlchemy type."""
    kind = getattr(kind, "data_type", kind)  # a domain's own
    written = str(kind).lower()
    name = kind.__visit_name__.lower()
    if name == "tinyint":
        word = "bool" if getattr(kind, "display_width", None) == 1 else "int2"
        return SourceColumn(written, word, "N")
    if name in _BYTES:
        return SourceColumn(written, "bytea", "U")
    if getattr(kind, "unsigned", False):
        words = {"bigint": "uint8", "integer": "uint4", "mediumint": "uint4", "smallint": "int4"}
        if name in words:
            written = "numeric(20,0)" if name == "bigint" else written
            return SourceColumn(written, words[name], "N")
    word, category = next(
        ((word, category) for base, word, category in _WORDS if isinstance(kind, base)),
        (name, "U"),
    )
    if word == "numeric" and kind.precision is not None:
        written = f"numeric({kind.precision},{kind.scale or 0})"
    return SourceColumn(written, word, category)
