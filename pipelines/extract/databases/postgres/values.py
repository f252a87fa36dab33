"""Turns values as PostgreSQL writes them into Arrow's, a column at a time."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.extract.databases.values import misfit

# Python's calendar ends where PostgreSQL's goes on; what lies beyond becomes its first or last
# moment, as in the other capture modes.
_FIRST, _LAST = "0001-01-01", "9999-12-31"
_PLAIN = r"^\d{4}-[^a-zA-Z]*$"
_EARLY = r"(^-)|(BC$)"


def parse(table: str, field: Any, texts: Any) -> Any:
    """Values of a column, exactly; null stays null.

    The texts are Arrow strings, written with `DateStyle` ISO and `TimeZone` UTC.

    Raises:
        SchemaDrift: a value does not fit the type.
    """
    kind = field.type
    try:
        if pa.types.is_string(kind):
            return texts
        if pa.types.is_binary(kind):
            return _bytes(texts)
        if pa.types.is_boolean(kind):
            return pc.equal(texts, pa.scalar("t"))
        if pa.types.is_temporal(kind):
            return _moments(texts, kind)
        return texts.cast(kind)
    except pa.ArrowInvalid as error:
        raise misfit(table, field.name, error) from error


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


def _moments(texts: Any, kind: Any) -> Any:
    try:
        return _read(texts, kind)
    except pa.ArrowInvalid:
        return _read(_within(texts, kind), kind)


def _read(texts: Any, kind: Any) -> Any:
    if pa.types.is_date(kind):
        return texts.cast(kind)
    if pc.all(pc.ends_with(texts, "+00")).as_py():
        return texts.cast(kind)
    return texts.cast(pa.timestamp("us")).cast(kind)


def _within(texts: Any, kind: Any) -> Any:
    """Moments beyond Python's calendar, moved to its ends."""
    zoned = pc.any(pc.ends_with(pc.replace_substring(texts, " BC", ""), "+00")).as_py()
    first, last = _FIRST, _LAST
    if not pa.types.is_date(kind):
        first, last = f"{_FIRST} 00:00:00", f"{_LAST} 23:59:59.999999"
    if zoned:
        first, last = f"{first}+00", f"{last}+00"
    early = pc.match_substring_regex(texts, _EARLY)
    edge = pc.if_else(early, first, last)
    return pc.if_else(pc.match_substring_regex(texts, _PLAIN), texts, edge)
