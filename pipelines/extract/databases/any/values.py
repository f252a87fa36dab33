"""Asks any database that SQLAlchemy knows for columns so that their declared types are met."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from pipelines.extract.databases.values import MISFITS, misfit

# Python's calendar ends where PostgreSQL's goes on; infinity becomes its first or last moment.
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def selected(dialect: str, column: Any, kind: pa.DataType) -> Any:
    """How a column is asked for, so that its declared type is met exactly."""
    mysql = dialect in ("mysql", "mariadb")
    if pa.types.is_string(kind):
        text = isinstance(column.type, sa.String)
        plain = text and not isinstance(column.type, (sa.Enum, sa.CHAR))
        return column if plain else sa.cast(column, sa.CHAR() if mysql else sa.Text())
    if dialect == "postgresql":
        return _from_postgres(column, kind)
    if dialect == "sqlite" and pa.types.is_decimal(kind):
        return sa.cast(column, sa.Text())
    if pa.types.is_floating(kind):
        # MySQL writes a FLOAT with six digits; as a DOUBLE it is written whole.
        whole = column * sa.literal_column("1e0") if mysql else column
        return sa.type_coerce(whole, sa.Float())
    if pa.types.is_boolean(kind):
        return sa.type_coerce(column, sa.Boolean())
    if dialect == "sqlite" and pa.types.is_timestamp(kind):
        return sa.type_coerce(column, sa.DateTime())
    if dialect == "sqlite" and pa.types.is_date(kind):
        return sa.type_coerce(column, sa.Date())
    return column


def batch(table: str, columns: list[Any], schema: pa.Schema) -> pa.RecordBatch:
    """Columns of values, or of Arrow arrays, in the types of a schema.

    Raises:
        SchemaDrift: a value does not fit its type.
    """
    arrays = [_array(table, field, each) for field, each in zip(schema, columns, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def _array(table: str, field: Any, values: Any) -> Any:
    try:
        if not isinstance(values, pa.Array):
            textual = pa.types.is_decimal(field.type) and any(isinstance(v, str) for v in values)
            values = pa.array(values, pa.string() if textual else field.type)
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        return values if values.type == field.type else pc.cast(values, field.type)
    except MISFITS as error:
        raise misfit(table, field.name, error) from error


def _from_postgres(column: Any, kind: pa.DataType) -> Any:
    if pa.types.is_decimal(kind):
        scale = getattr(column.type, "scale", None)
        if isinstance(column.type, sa.Numeric) and scale is not None and scale <= kind.scale:
            return sa.cast(column, sa.Text())
        return sa.cast(sa.func.trim_scale(sa.cast(column, sa.Numeric())), sa.Text())
    if pa.types.is_floating(kind):
        return sa.cast(column, sa.Double())
    if pa.types.is_timestamp(kind):
        moment = sa.cast(column, sa.DateTime(timezone=True))
        return _within(moment, _FIRST, _LAST)
    if pa.types.is_date(kind):
        return _within(column, _FIRST.date(), _LAST.date())
    return column


def _within(column: Any, first: Any, last: Any) -> Any:
    return sa.case(
        (column < first, sa.literal(first)), (column > last, sa.literal(last)), else_=column
    )
