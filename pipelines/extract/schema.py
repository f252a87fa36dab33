"""Compares a shop's declaration with the tables that its PostgreSQL database has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.extract.databases.postgres.connection import connect
from pipelines.shared.declaration import Shop, Table

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

_ACCEPTED = {
    "int16": {"int2"},
    "int32": {"int2", "int4"},
    "int64": {"int2", "int4", "int8", "uint4"},
    "uint32": {"uint4"},
    "uint64": {"uint4", "uint8"},
    "float64": {"int2", "int4", "uint4", "float4", "float8", "numeric"},
    "uuid": {"uuid"},
    "json": {"json", "jsonb", "text"},
    "bytes": {"bytea"},
    "bool": {"bool"},
    "date": {"date"},
    "timestamp": {"timestamptz", "timestamp", "date"},
}
_WHOLE_DIGITS = {"int2": 5, "int4": 10, "uint4": 10, "int8": 19, "uint8": 20}
"""`uint4` and `uint8` are MySQL's unsigned integers, as the cursor mode calls them."""
_NUMERIC = re.compile(r"^numeric\((\d+),(-?\d+)\)$")
_DECIMAL = re.compile(r"^decimal\((\d+), ?(\d+)\)$")
_DIGITS_OF = re.compile(r"^(?:numeric|decimal)\((\d+), ?(\d+)\)")
_FLOATS = {"float4", "float8", "float", "double"}
_NARROW = (
    "bool", "int16", "int32", "int64", "uint32", "uint64", "date", "timestamp", "uuid", "bytes"
)  # fmt: skip
_NO_TEXT = {"A", "C", "P"}  # arrays, rows, pseudo-types


@dataclass(frozen=True)
class SourceColumn:
    """A column as the database has it: its type in full, the type's name and its category."""

    written: str
    type: str
    category: str


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


def drift(connection: Any, shop: Shop, table: str) -> list[str]:
    """Every way in which a table departs from its declaration, with the way out."""
    schema = shop.source.schema_name
    found = columns_of(connection, schema, table)
    if not found:
        known = [name for (name,) in connection.execute(_TABLES, [schema]).fetchall()]
        near = difflib.get_close_matches(table, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return [
            f"{schema}.{table} is declared, but the database has no such table; {hint}"
            f"mend `tables` or the source's `schema` in {_file(shop)}"
        ]
    return compare(shop, table, found)


def compare(
    shop: Shop,
    table: str,
    found: Mapping[str, SourceColumn],
    unfit: Callable[[str, SourceColumn], str] | None = None,
) -> list[str]:
    """Compare the columns that a table has with the declared ones.

    Args:
        shop: the declaration.
        table: one of its tables.
        found: the columns that the database has.
        unfit: why values of a column may not fit a declared type, empty where they do; default:
            the rules for PostgreSQL.
    """
    unfit = unfit or unfit_in_postgres
    declared = shop.tables[table]
    faults = []
    for name, kind in declared.columns.items():
        if name not in found:
            near = difflib.get_close_matches(name, set(found) - set(declared.columns), n=1)
            hint = f" (is it now {near[0]!r}?)" if near else ""
            how, way_out = "declared", f"mend `tables.{table}.columns` in {_file(shop)}"
            if name in declared.auto_added:
                how, way_out = "taken", f"list it under `ignore` in {_file(shop)}"
            faults.append(
                f"{table}.{name} is {how}, but the table has no such column{hint}; {way_out} "
                f"({how} as {kind})"
            )
        elif name not in declared.personal and (wrong := unfit(kind, found[name])):
            faults.append(
                f"{table}.{name} is {_how(name, declared)} {kind}, but the table has "
                f"{found[name].written}, "
                f"{wrong}; mend `tables.{table}.columns.{name}` in {_file(shop)}"
            )
    if declared.new_columns == "ignore":
        return faults
    return faults + [
        f"{table}.{name} is new; add it to {_file(shop)} or list it under `ignore` "
        f"(found as {found[name].written})"
        for name in found
        if _unknown(name, declared)
    ]


def to_take(
    declared: Table,
    found: Mapping[str, SourceColumn],
    known: Mapping[str, str],
    unfit: Callable[[str, SourceColumn], str] | None = None,
) -> dict[str, str]:
    """Columns beyond the declared ones that `new_columns: take` takes, in the source's order.

    Args:
        declared: a table that takes new columns.
        found: the columns that the database has.
        known: column → type of those taken before; these keep their type, also when they are gone.
        unfit: see `compare`.

    Returns:
        Column → type; a column of a type that no declared type fits is left out.
    """
    wanted = {
        name: known.get(name) or inferred(column, unfit or unfit_in_postgres)
        for name, column in found.items()
        if _unknown(name, declared)
    }
    gone = {
        name: kind for name, kind in known.items() if name not in found and _unknown(name, declared)
    }
    return {name: kind for name, kind in {**wanted, **gone}.items() if kind}


def inferred(column: SourceColumn, unfit: Callable[[str, SourceColumn], str]) -> str:
    """The narrowest declared type that takes every value of a column; empty where none does."""
    kinds = [*_NARROW, "string"]
    if match := _DIGITS_OF.search(column.written):
        kinds.insert(0, f"decimal({match[1]},{match[2]})")
    if column.type in _FLOATS:
        kinds.insert(0, "float64")
    return next((kind for kind in kinds if not unfit(kind, column)), "")


def _how(name: str, declared: Table) -> str:
    return "taken as" if name in declared.auto_added else "declared"


def _unknown(name: str, declared: Table) -> bool:
    return name not in declared.columns and name not in declared.ignore


def unfit_in_postgres(kind: str, column: SourceColumn) -> str:
    """Why values of a column may not fit a declared type; empty where they do."""
    if kind == "string":
        textual = column.category not in _NO_TEXT and column.type != "bytea"
        return "" if textual else "which has no plain text form"
    if match := _DECIMAL.match(kind):
        return _unfit_decimal(int(match[1]), int(match[2]), column)
    accepted = _ACCEPTED[kind]
    return "" if column.type in accepted else f"accepted: {', '.join(sorted(accepted))}"


def _unfit_decimal(precision: int, scale: int, column: SourceColumn) -> str:
    if column.type in _WHOLE_DIGITS:
        needed, digits = 0, _WHOLE_DIGITS[column.type]
    elif match := _NUMERIC.match(column.written):
        needed, digits = int(match[2]), int(match[1]) - int(match[2])
    else:
        # Without a limit of its own each value is checked when it is read.
        return "" if column.type == "numeric" else "accepted: numeric and integers"
    if needed <= scale and digits <= precision - scale:
        return ""
    return f"which holds {digits} digits before and {max(needed, 0)} after the point"


def _file(shop: Shop) -> str:
    return f"shops/{shop.shop}/shop.yaml"
