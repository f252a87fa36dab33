"""Turns values of a MySQL or MariaDB table into Arrow's.

They come from the log or a SELECT, and must look the same from both:
- DATETIME has no zone and is read as UTC; TIMESTAMP is UTC. A zero date is null.
- FLOAT is its exact value as a double, not the six digits that MySQL prints.
- TINYINT(1) is a boolean: everything but 0 is true.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.extract.databases.mysql.types import BYTES, TEXT
from pipelines.extract.schema import SourceColumn
from pipelines.extract.source import EPOCH
from pipelines.shared.declaration import Table

_LENGTH = re.compile(r"^binary\((\d+)\)")


def selected(table: Table, columns: Mapping[str, SourceColumn]) -> str:
    """The stored columns as a SELECT has to ask for them."""
    return ", ".join(
        f"`{name}` + 0e0" if columns[name].type == "float" else f"`{name}`"
        for name in table.stored_columns()
    )


def array(values: Sequence[Any], kind: Any, column: SourceColumn) -> Any:
    """Values of a column as an Arrow array; null stays null.

    Raises:
        ValueError, OverflowError: a value does not fit the type.
    """
    source = column.type
    if source in ("uuid", *BYTES):
        values = [None if each is None else _whole(each, column) for each in values]
        if source == "uuid":
            values = [None if each is None else str(UUID(bytes=each)) for each in values]
        return pa.array(values, kind)
    if pa.types.is_boolean(kind):
        return pa.array(values, pa.int64()).cast(pa.bool_())
    if pa.types.is_temporal(kind):
        # A zero date comes as None from the log and as text from a SELECT.
        moments = pa.array([None if isinstance(each, str) else each for each in values], kind)
        if source == "timestamp":
            zero = pa.scalar(EPOCH, kind)
            moments = pc.if_else(pc.equal(moments, zero), pa.scalar(None, kind), moments)
        return moments
    if pa.types.is_floating(kind) and source == "decimal":
        return pa.array([None if each is None else float(each) for each in values], kind)
    if pa.types.is_string(kind) and source not in TEXT:
        return pa.array([_text(each) for each in values], kind)
    return pa.array(values, kind)


def _whole(value: Any, column: SourceColumn) -> bytes:
    """Bytes in full: the log leaves out zeros at the end of a value of fixed length."""
    if column.type == "uuid":
        # A SELECT gives its text, the log its bytes; none at all come as an empty text.
        return (
            UUID(value).bytes
            if isinstance(value, str) and value
            else (value or b"").ljust(16, b"\0")
        )
    length = _LENGTH.match(column.written)
    return (value or b"").ljust(int(length[1]) if length else 0, b"\0")


def _text(value: Any) -> str | None:
    """A personal value of another type than text, as MySQL would print it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, date, Decimal)):
        return str(value)
    raise pa.ArrowInvalid(f"a {type(value).__name__} has no plain text form")
