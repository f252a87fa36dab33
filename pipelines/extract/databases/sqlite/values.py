"""Turns values of an SQLite table, which have types of their own, into Arrow's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa


def array(values: Sequence[Any], kind: Any) -> Any:
    """Values of a column as an Arrow array; null stays null.

    Raises:
        ValueError, TypeError, OverflowError: a value does not fit the type.
    """
    if pa.types.is_string(kind):
        return pa.array([_text(each) for each in values], kind)
    if pa.types.is_boolean(kind):
        return pa.array(values, pa.int64()).cast(kind)
    if pa.types.is_decimal(kind):
        return pa.array([None if each is None else _decimal(each) for each in values], kind)
    if pa.types.is_date(kind):
        return pa.array([None if each is None else date.fromisoformat(each) for each in values])
    if pa.types.is_timestamp(kind):
        return pa.array([None if each is None else _moment(each) for each in values], kind)
    if pa.types.is_integer(kind) and any(isinstance(each, float) for each in values):
        raise ValueError("a float is no whole number")  # Arrow would cut it.
    return pa.array(values, kind)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        raise pa.ArrowInvalid("a blob has no plain text form")
    return value if value is None else str(value)


def _decimal(value: Any) -> Decimal:
    """SQLite keeps a decimal as a whole number, a float (its shortest form counts) or a text."""
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is no number") from None


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text such as 2017-01-02 10:00:00.000001")
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
