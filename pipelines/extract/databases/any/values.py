"""Asks any database that SQLAlchemy knows for columns so that their declared types are met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from pipelines.extract.databases.values import Misfits
from pipelines.shared.columns import MISFITS
from pipelines.shared.declaration import Table

FIRST = datetime(1, 1, 1, tzinfo=UTC)
# Python's calendar ends where PostgreSQL's goes on.
_LAST = datetime.max.replace(tzinfo=UTC)


def selected(dialect: str, column: Any, kind: pa.DataType) -> Any:
    """How a column is asked for, so that its declared type is met exactly."""
    mysql = dialect in ("mysql", "mariadb")
    if dialect == "sqlite":
        return sa.type_coerce(column, sa.types.NullType())
    if pa.types.is_string(kind):
        text = isinstance(column.type, sa.String)
        plain = text and not isinstance(column.type, (sa.Enum, sa.CHAR))
        return column if plain else sa.cast(column, sa.CHAR() if mysql else sa.Text())
    if dialect == "postgresql":
        return _from_postgres(column, kind)
    if pa.types.is_floating(kind):
        # MySQL writes a FLOAT with six digits; as a DOUBLE it is written whole.
        whole = column * sa.literal_column("1e0") if mysql else column
        return sa.type_coerce(whole, sa.Float())
    if pa.types.is_boolean(kind):
        return sa.type_coerce(column, sa.Boolean())
    return column


def outside(dialect: str, column: Any, kind: pa.DataType) -> Any:
    """A date or time outside Python's calendar as text, else null; None where there is none."""
    if dialect != "postgresql" or not pa.types.is_temporal(kind):
        return None
    return sa.case((sa.not_(_within(column, kind)), sa.cast(column, sa.Text())))


def batch(
    table: Table,
    columns: list[Any],
    schema: pa.Schema,
    outside: Sequence[str],
    array: Callable[..., Any],
) -> pa.RecordBatch:
    """Columns of values, or of Arrow arrays, in the types of a schema, and the misfits.

    After those of the schema come what lies outside, as texts, for each column of that name;
    `array` converts values, or an Arrow array, to a type.
    """
    misfits = Misfits(table, len(columns[0]))
    arrays = [
        misfits.fitted(field.name, each, partial(array, kind=field.type))
        for field, each in zip(schema, columns, strict=False)
    ]
    for name, texts in zip(outside, columns[len(schema) :], strict=True):
        misfits.add(name, texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string()))
    return pa.record_batch(
        [*arrays, misfits.array()], schema=schema.append(pa.field(MISFITS, pa.string()))
    )


def array(values: Any, kind: pa.DataType) -> Any:
    """Values of a column as an Arrow array; null stays null.

    Raises:
        ValueError, TypeError, OverflowError: a value does not fit the type.
    """
    if not isinstance(values, pa.Array):
        textual = pa.types.is_decimal(kind) and any(isinstance(each, str) for each in values)
        values = pa.array(values, pa.string() if textual else kind)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    return values if values.type == kind else pc.cast(values, kind)


def _from_postgres(column: Any, kind: pa.DataType) -> Any:
    if pa.types.is_decimal(kind):
        scale = getattr(column.type, "scale", None)
        if isinstance(column.type, sa.Numeric) and scale is not None and scale <= kind.scale:
            return sa.cast(column, sa.Text())
        return sa.cast(sa.func.trim_scale(sa.cast(column, sa.Numeric())), sa.Text())
    if pa.types.is_floating(kind):
        return sa.cast(column, sa.Double())
    if pa.types.is_temporal(kind):
        moment = sa.cast(column, sa.DateTime(timezone=True)) if kind != pa.date32() else column
        return sa.case((_within(column, kind), moment))
    return column


def _within(column: Any, kind: pa.DataType) -> Any:
    if pa.types.is_date(kind):
        return column.between(FIRST.date(), _LAST.date())
    return sa.cast(column, sa.DateTime(timezone=True)).between(FIRST, _LAST)
