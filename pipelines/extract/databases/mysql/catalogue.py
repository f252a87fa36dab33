"""The columns of a MySQL or MariaDB table: as the server and its binlog describe them."""

from __future__ import annotations

from typing import Any

from pymysqlreplication.constants import FIELD_TYPE

from pipelines.extract.databases.mysql.connection import connect, rows
from pipelines.extract.databases.mysql.types import DIGITS, unfit
from pipelines.extract.schema import SourceColumn, compare, missing_table
from pipelines.shared.declaration import Shop

_COLUMNS = """
    SELECT column_name, column_type, data_type
    FROM information_schema.columns
    WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position
"""
_TABLES = """
    SELECT table_name, engine FROM information_schema.tables
    WHERE table_schema = %s AND table_type = 'BASE TABLE' ORDER BY 1
"""
_GENERATED = """
    SELECT column_name FROM information_schema.columns
    WHERE table_schema = %s AND table_name = %s AND extra LIKE '%%GENERATED%%'
"""
_ENGINE = "InnoDB"
_LOGGED = {
    FIELD_TYPE.TINY: "tinyint", FIELD_TYPE.SHORT: "smallint", FIELD_TYPE.INT24: "mediumint",
    FIELD_TYPE.LONG: "int", FIELD_TYPE.LONGLONG: "bigint", FIELD_TYPE.FLOAT: "float",
    FIELD_TYPE.DOUBLE: "double", FIELD_TYPE.NEWDECIMAL: "decimal", FIELD_TYPE.DATE: "date",
    FIELD_TYPE.DATETIME: "datetime", FIELD_TYPE.DATETIME2: "datetime",
    FIELD_TYPE.TIMESTAMP: "timestamp", FIELD_TYPE.TIMESTAMP2: "timestamp",
    FIELD_TYPE.TIME: "time", FIELD_TYPE.TIME2: "time", FIELD_TYPE.YEAR: "year",
    FIELD_TYPE.VARCHAR: "varchar", FIELD_TYPE.VAR_STRING: "varchar", FIELD_TYPE.STRING: "varchar",
    FIELD_TYPE.BLOB: "text", FIELD_TYPE.ENUM: "enum", FIELD_TYPE.SET: "set",
    FIELD_TYPE.BIT: "bit", FIELD_TYPE.JSON: "json",
}  # fmt: skip


def columns_of(connection: Any, schema: str, table: str) -> dict[str, SourceColumn]:
    """Columns of a table in their order; empty where there is no such table."""
    return {
        str(name): SourceColumn(
            str(written),
            f"{kind} unsigned" if kind in DIGITS and " unsigned" in str(written) else str(kind),
            "",
        )
        for name, written, kind in rows(connection, _COLUMNS, (schema, table))
    }


def tables_of(url: str, shop: Shop) -> dict[str, dict[str, SourceColumn]]:
    """The columns of every table of a source.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    with connect(url, shop.source.capture) as connection:
        schema = shop.source.schema_name
        return {table: columns_of(connection, schema, table) for table in shop.tables}


def generated(connection: Any, schema: str, table: str) -> set[str]:
    """The columns that the server computes."""
    return {str(name) for (name,) in rows(connection, _GENERATED, (schema, table))}


def logged(column: Any) -> SourceColumn:
    """A column as a table map of the binlog describes it."""
    name = _LOGGED.get(column.type, f"type {column.type}")
    if name == "text":
        name = ("tinytext", "text", "mediumtext", "longtext")[column.length_size - 1]
    if column.character_set_name == "binary":
        name = "varbinary" if name == "varchar" else name.replace("text", "blob")
    kind = f"{name} unsigned" if name in DIGITS and column.unsigned else name
    written = kind
    if name == "decimal":
        written = f"decimal({column.precision},{column.decimals})"
    elif kind == "tinyint":
        written = "tinyint(1)"  # The log has no widths: it may be a boolean.
    return SourceColumn(written, kind, "")


def drift(connection: Any, shop: Shop, table: str) -> list[str]:
    """Every way in which a table departs from its declaration, with the way out."""
    schema = shop.source.schema_name
    engines = {str(name): str(kind) for name, kind in rows(connection, _TABLES, (schema,))}
    if table not in engines:
        return [missing_table(shop, table, engines, f"{schema}.{table}")]
    drifts = compare(shop, table, columns_of(connection, schema, table), unfit)
    if engines[table] != _ENGINE:
        drifts.append(
            f"{schema}.{table} is kept by {engines[table]}, which has no transactions and so no "
            f"consistent snapshot; run `ALTER TABLE {schema}.{table} ENGINE = {_ENGINE}`"
        )
    return drifts
