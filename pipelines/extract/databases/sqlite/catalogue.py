"""The tables of an SQLite file and their columns."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from pipelines.extract.databases.any.types import in_words
from pipelines.extract.databases.postgres.types import unfit
from pipelines.extract.schema import SourceColumn, compare, missing_table
from pipelines.shared.declaration import Shop


def tables(connection: sqlite3.Connection) -> set[str]:
    """Names of the file's tables."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    return {name for (name,) in connection.execute(query)}


def columns_of(connection: sqlite3.Connection, table: str) -> dict[str, SourceColumn]:
    """Columns of a table in their order; empty where there is no such table."""
    if table not in tables(connection):
        return {}
    engine = sa.create_engine(
        "sqlite://", creator=lambda: connection, poolclass=sa.StaticPool, pool_reset_on_return=None
    )
    return {each["name"]: in_words(each["type"]) for each in sa.inspect(engine).get_columns(table)}


def drift(connection: sqlite3.Connection, shop: Shop, table: str) -> list[str]:
    """Every way in which a table departs from its declaration, with the way out."""
    if columns := columns_of(connection, table):
        return compare(shop, table, columns, unfit)
    return [missing_table(shop, table, tables(connection), keys="`tables`")]
