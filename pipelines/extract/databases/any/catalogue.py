"""The columns of tables and views in any database that SQLAlchemy knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from pipelines.extract.databases.any.connection import connect
from pipelines.extract.databases.any.types import in_words
from pipelines.extract.databases.postgres.types import unfit
from pipelines.extract.schema import SourceColumn, compare, missing_table
from pipelines.shared.declaration import Shop


def schema_of(connection: sa.Connection, shop: Shop) -> str | None:
    """The declared schema; None where the kind of database knows none of that name."""
    name = shop.source.schema_name
    return None if name == "public" and connection.dialect.name != "postgresql" else name


def columns_of(connection: sa.Connection, shop: Shop, table: str) -> dict[str, SourceColumn]:
    """Columns of a table in their order; empty where there is no such table."""
    return {name: in_words(kind) for name, kind in reflected(connection, shop, table).items()}


def reflected(connection: sa.Connection, shop: Shop, table: str) -> dict[str, Any]:
    """The same with SQLAlchemy's types."""
    try:
        columns = sa.inspect(connection).get_columns(table, schema_of(connection, shop))
    except sa.exc.NoSuchTableError:
        return {}
    return {each["name"]: each["type"] for each in columns}


def tables_of(url: str, shop: Shop) -> dict[str, dict[str, SourceColumn]]:
    """The columns of every table of a source, of types that take every value they can hold.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    with connect(url) as (connection, _):
        tables = {table: columns_of(connection, shop, table) for table in shop.tables}
        if connection.dialect.name != "sqlite":
            return tables
    return {
        table: {
            # Whatever its name, an integer of SQLite has 64 bits.
            name: replace(each, type="int8") if each.type in ("int2", "int4") else each
            for name, each in columns.items()
        }
        for table, columns in tables.items()
    }


def drift(connection: sa.Connection, shop: Shop, table: str) -> list[str]:
    """Every way in which a table departs from its declaration, with the way out."""
    if columns := columns_of(connection, shop, table):
        return compare(shop, table, columns, unfit)
    inspector, schema = sa.inspect(connection), schema_of(connection, shop)
    known = [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]
    return [missing_table(shop, table, known)]
