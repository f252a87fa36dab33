"""The types that a column may be declared with, and how the lake stores them."""

from __future__ import annotations

import re

import pyarrow as pa

PLAIN: dict[str, pa.DataType] = {
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint32": pa.int64(),
    "uint64": pa.decimal128(20, 0),
    "float64": pa.float64(),
    "string": pa.string(),
    "uuid": pa.string(),
    "json": pa.string(),
    "bytes": pa.binary(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
"""Delta Lake has no unsigned numbers: they are stored in the next wider type that it has."""

OPAQUE = ("bytes", "json")
"""Stored as they are, but no key and nothing that a ranker reads."""

COUNTABLE = ("bool", "int16", "int32", "int64", "uint32", "uint64", "float64")
"""A flag or a number, as decimals are too."""

_DECIMAL = re.compile(r"^decimal\((\d{1,2}), ?(\d{1,2})\)$")


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a declared column type.

    Raises:
        ValueError: the type is not known.
    """
    if name in PLAIN:
        return PLAIN[name]
    if (
        (match := _DECIMAL.match(name))
        and 1 <= int(match[1]) <= 38
        and int(match[2]) <= int(match[1])
    ):
        return pa.decimal128(int(match[1]), int(match[2]))
    raise ValueError(
        f"{name!r} is not a column type; accepted: {', '.join(PLAIN)}, decimal(p,s) with p up to "
        "38 and s up to p"
    )
