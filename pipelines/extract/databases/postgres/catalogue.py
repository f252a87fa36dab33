"""The columns of a PostgreSQL table: as the server and its log describe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.extract.databases.postgres.connection import connect
from pipelines.extract.databases.postgres.types import unfit
from pipelines.extract.schema import SourceColumn, compare, missing_table
from pipelines.shared.declaration import Shop

_COLUMNS = """
    SELECT a.attname,
           format_type(coalesce(nullif(t.typbasetype, 0), t.oid),
                       CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END),
           coalesce(b.typname, t.typname),
           coalesce(b.typcategory, t.typcategory)::text
    FROM pg_attribute AS a
    JOIN pg_class AS c ON c.oid = a.attrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_type AS b ON b.oid = t.typbasetype
    WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
          AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1"
_GENERATED = "SELECT attname FROM pg_attribute WHERE attrelid = %s AND attgenerated <> ''"
_TYPES = """
    SELECT n, format_type(t.base, CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE m END),
           b.typname, b.typcategory::text
    FROM unnest(%s::text[], %s::bigint[], %s::int[]) AS u (n, o, m)
    JOIN (SELECT *, coalesce(nullif(typbasetype, 0), oid) AS base FROM pg_type) AS t
        ON t.oid = u.o::oid
    JOIN pg_type AS b ON b.oid = t.base
"""


def columns_of(connection: Any, schema: str, table: str) -> dict[str, SourceColumn]:
    """Columns of a table in their order; empty where there is no such table (or it is a view)."""
    rows = connection.execute(_COLUMNS, [schema, table]).fetchall()
    return {name: SourceColumn(*rest) for name, *rest in rows}


def tables_of(url: str, shop: Shop) -> dict[str, dict[str, SourceColumn]]:
    """The columns of every table of a PostgreSQL source.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    with connect(url, shop.source.capture) as connection:
        schema = shop.source.schema_name
        return {table: columns_of(connection, schema, table) for table in shop.tables}


def generated(connection: Any, oid: int) -> set[str]:
    """The columns that the server computes."""
    return {name for (name,) in connection.execute(_GENERATED, [oid]).fetchall()}


def logged(connection: Any, columns: Mapping[str, tuple[int, int]]) -> dict[str, SourceColumn]:
    """Columns of the log, given oid and modifier of their types; one whose type is gone is out."""
    kinds, modifiers = zip(*columns.values(), strict=True)
    bound = [list(columns), list(kinds), list(modifiers)]
    types = {
        name: SourceColumn(*rest) for name, *rest in connection.execute(_TYPES, bound).fetchall()
    }
    return {name: types[name] for name in columns if name in types}


def drifts(connection: Any, shop: Shop) -> list[str]:
    """`drift` of every declared table."""
    return [each for table in sorted(shop.tables) for each in drift(connection, shop, table)]


def drift(connection: Any, shop: Shop, table: str) -> list[str]:
    """Every way in which a table departs from its declaration, with the way out."""
    schema = shop.source.schema_name
    columns = columns_of(connection, schema, table)
    if not columns:
        known = [name for (name,) in connection.execute(_TABLES, [schema]).fetchall()]
        return [missing_table(shop, table, known, f"{schema}.{table}")]
    return compare(shop, table, columns, unfit)
