"""Turns values as PostgreSQL writes them into Arrow's, a column at a time."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_CALENDAR = {
    "date": ("0001-01-01", "9999-12-31"),
    "timestamptz": ("0001-01-01 00:00+00", "9999-12-31 23:59:59.999999+00"),
}


def parse(texts: Any, kind: Any) -> Any:
    """Values of a column, exactly; null stays null.

    The texts are Arrow strings, written with `DateStyle` ISO and `TimeZone` UTC.

    Raises:
        ArrowInvalid: a value does not fit the type.
    """
    if pa.types.is_string(kind):
        return texts
    if pa.types.is_binary(kind):
        return _bytes(texts)
    if pa.types.is_boolean(kind):
        return pc.equal(texts, pa.scalar("t"))
    if pa.types.is_timestamp(kind) and not pc.all(pc.ends_with(texts, "+00")).as_py():
        return texts.cast(pa.timestamp("us")).cast(kind)
    return texts.cast(kind)


def outside(column: str, kind: str) -> str | None:
    """SQL: whether Python's calendar lacks a date or time, which PostgreSQL's has; else None."""
    if kind not in _CALENDAR:
        return None
    first, last = _CALENDAR[kind]
    return f"{column} < '{first}' OR {column} > '{last}'"


def _bytes(texts: Any) -> Any:
    r"""`\x` and two hexadecimal digits a byte, all values at once."""
    lengths = pc.fill_null(pc.divide(pc.subtract(pc.binary_length(texts), 2), 2), 0)
    ends = pc.cumulative_sum(lengths).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    digits = "".join(text[2:] for text in texts.drop_null().to_pylist())
    data = pa.py_buffer(bytes.fromhex(digits))
    valid = texts.is_valid().buffers()[1]
    return pa.Array.from_buffers(
        pa.binary(), len(texts), [valid, offsets.buffers()[1], data], offset=0
    )
