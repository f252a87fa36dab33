"""Which declared types the columns of a PostgreSQL table fit."""

from __future__ import annotations

import re

from pipelines.extract.schema import SourceColumn, unfit_decimal

_ACCEPTED = {
    "int16": {"int2"},
    "int32": {"int2", "int4"},
    "int64": {"int2", "int4", "int8", "uint4"},
    "uint32": {"uint4"},
    "uint64": {"uint4", "uint8"},
    "float64": {"int2", "int4", "uint4", "float4", "float8", "numeric"},
    "uuid": {"uuid"},
    "json": {"json", "jsonb", "text"},
    "bytes": {"bytea"},
    "bool": {"bool"},
    "date": {"date"},
    "timestamp": {"timestamptz", "timestamp", "date"},
}
_WHOLE_DIGITS = {"int2": 5, "int4": 10, "uint4": 10, "int8": 19, "uint8": 20}
"""`uint4` and `uint8` are MySQL's unsigned integers, as the cursor mode calls them."""
_NUMERIC = re.compile(r"^numeric\((\d+),(-?\d+)\)$")
_DECIMAL = re.compile(r"^decimal\((\d+), ?(\d+)\)$")
_NO_TEXT = {"A", "C", "P"}  # arrays, rows, pseudo-types


def unfit(kind: str, column: SourceColumn) -> str:
    """Why values of a column may not fit a declared type; empty where they do."""
    if kind == "string":
        textual = column.category not in _NO_TEXT and column.type != "bytea"
        return "" if textual else "which has no plain text form"
    if match := _DECIMAL.match(kind):
        wrong = unfit_decimal(match, column, _WHOLE_DIGITS, _NUMERIC)
        if wrong is not None:
            return wrong
        # Without a limit of its own each value is checked when it is read.
        return "" if column.type == "numeric" else "accepted: numeric and integers"
    accepted = _ACCEPTED[kind]
    return "" if column.type in accepted else f"accepted: {', '.join(sorted(accepted))}"
