"""Columns of a MySQL or MariaDB table: compared with the declaration, and turned into Arrow.

Values come from two doors, the log and a SELECT, and must look the same behind both:
- DATETIME has no zone and is read as UTC; TIMESTAMP is UTC. A zero date is null.
- FLOAT is its exact value as a double, not the six digits that MySQL prints.
- TINYINT(1) is a boolean: everything but 0 is true.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from pymysqlreplication.constants import FIELD_TYPE

from pipelines.extract.pseudonyms import pseudonymise
from pipelines.extract.schema import SourceColumn, compare
from pipelines.shared.declaration import Shop, Table
from pipelines.shared.errors import SchemaDrift

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

_DIGITS = {
    "tinyint": 3, "tinyint unsigned": 3, "smallint": 5, "smallint unsigned": 5,
    "mediumint": 7, "mediumint unsigned": 8, "int": 10, "int unsigned": 10,
    "bigint": 19, "bigint unsigned": 20,
}  # fmt: skip
_INT16 = {"tinyint", "tinyint unsigned", "smallint"}
_INT32 = set(_DIGITS) - {"int unsigned", "bigint", "bigint unsigned"}
_TEXT = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"}
_BYTES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_ACCEPTED = {
    "int16": _INT16,
    "int32": _INT32,
    "uint32": {name for name in _DIGITS if " " in name} - {"bigint unsigned"},
    "uint64": {name for name in _DIGITS if " " in name},
    "int64": set(_DIGITS) - {"bigint unsigned"},
    "float64": {*_DIGITS, "float", "double", "decimal"},
    "bool": {"tinyint(1)"},
    "uuid": {"uuid"},
    "json": {"longtext"},
    "bytes": _BYTES,
    "date": {"date"},
    "timestamp": {"datetime", "timestamp"},
    "string": {*_TEXT, *_DIGITS},
}
_DECIMAL = re.compile(r"^decimal\((\d+), ?(\d+)\)")
_LENGTH = re.compile(r"^binary\((\d+)\)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def columns_of(connection: Any, schema: str, table: str) -> dict[str, SourceColumn]:
    """Columns of a table in their order; empty where there is no such table."""
    from pipelines.extract.databases.mysql.connection import rows

    found = rows(connection, _COLUMNS, (schema, table))
    return {
        str(name): SourceColumn(
            str(written),
            f"{kind} unsigned" if kind in _DIGITS and " unsigned" in str(written) else str(kind),
            "",
        )
        for name, written, kind in found
    }


def tables_of(url: str, shop: Shop) -> dict[str, dict[str, SourceColumn]]:
    """The columns of every table of a source.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    from pipelines.extract.databases.mysql.connection import connect

    with connect(url) as connection:
        schema = shop.source.schema_name
        return {table: columns_of(connection, schema, table) for table in shop.tables}


def generated(connection: Any, schema: str, table: str) -> set[str]:
    """The columns that the server computes."""
    from pipelines.extract.databases.mysql.connection import rows

    return {str(name) for (name,) in rows(connection, _GENERATED, (schema, table))}


def logged(column: Any) -> SourceColumn:
    """A column as a table map of the binlog describes it."""
    name = _LOGGED.get(column.type, f"type {column.type}")
    if name == "text":
        name = ("tinytext", "text", "mediumtext", "longtext")[column.length_size - 1]
    if column.character_set_name == "binary":
        name = "varbinary" if name == "varchar" else name.replace("text", "blob")
    kind = f"{name} unsigned" if name in _DIGITS and column.unsigned else name
    written = kind
    if name == "decimal":
        written = f"decimal({column.precision},{column.decimals})"
    elif kind == "tinyint":
        written = "tinyint(1)"  # The log has no widths: it may be a boolean.
    return SourceColumn(written, kind, "")


def drift(connection: Any, shop: Shop, table: str) -> list[str]:
    """Every way in which a table departs from its declaration, with the way out."""
    from pipelines.extract.databases.mysql.connection import rows

    schema = shop.source.schema_name
    engines = {str(name): str(kind) for name, kind in rows(connection, _TABLES, (schema,))}
    if table not in engines:
        near = difflib.get_close_matches(table, engines, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return [
            f"{schema}.{table} is declared, but the database has no such table; {hint}"
            f"mend `tables` or the source's `schema` in shops/{shop.shop}/shop.yaml"
        ]
    found = compare(shop, table, columns_of(connection, schema, table), unfit)
    if engines[table] != _ENGINE:
        found.append(
            f"{schema}.{table} is kept by {engines[table]}, which has no transactions and so no "
            f"consistent snapshot; run `ALTER TABLE {schema}.{table} ENGINE = {_ENGINE}`"
        )
    return found


def unfit(kind: str, column: SourceColumn) -> str:
    """Why values of a column may not fit a declared type; empty where they do."""
    if match := _DECIMAL.match(kind):
        return _unfit_decimal(int(match[1]), int(match[2]), column)
    accepted = _ACCEPTED[kind]
    if column.type in accepted or column.written.split(" ")[0] in accepted:
        return ""
    return f"accepted: {', '.join(sorted(accepted))}"


def _unfit_decimal(precision: int, scale: int, column: SourceColumn) -> str:
    if column.type in _DIGITS:
        needed, digits = 0, _DIGITS[column.type]
    elif match := _DECIMAL.match(column.written):
        needed, digits = int(match[2]), int(match[1]) - int(match[2])
    else:
        return "accepted: decimal and integers"
    if needed <= scale and digits <= precision - scale:
        return ""
    return f"which holds {digits} digits before and {needed} after the point"


def selected(table: Table, found: Mapping[str, SourceColumn]) -> str:
    """The stored columns as a SELECT has to ask for them."""
    return ", ".join(
        f"`{name}` + 0e0" if found[name].type == "float" else f"`{name}`"
        for name in table.stored_columns()
    )


def arrays(
    name: str, table: Table, found: Mapping[str, SourceColumn], rows: Sequence[Any], key: bytes
) -> list[Any]:
    """Rows of stored columns as one Arrow array a column, pseudonyms in place.

    Args:
        name: the table's name, for messages.
        table: its declaration.
        found: the columns that the database has.
        rows: tuples in the order of the stored columns.
        key: the key of the pseudonyms.

    Raises:
        SchemaDrift: a value does not fit its declared type.
    """
    made = []
    columns = zip(*rows, strict=True) if rows else [()] * len(table.stored_columns())
    for (column, kind), values in zip(table.stored_columns().items(), columns, strict=True):
        try:
            array = _array(values, kind, found[column])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise SchemaDrift(
                f"{name}.{column} holds a value that does not fit its declared type "
                f"({error}); declare a wider type in `tables.{name}.columns.{column}`"
            ) from error
        if table.personal.get(column) == "pseudonymise":
            array = pseudonymise(array, key)
        made.append(array)
    return made


def _array(values: Sequence[Any], kind: Any, column: SourceColumn) -> Any:
    source = column.type
    if source in ("uuid", *_BYTES):
        values = [None if each is None else _whole(each, column) for each in values]
        if source == "uuid":
            values = [None if each is None else str(UUID(bytes=each)) for each in values]
        return pa.array(values, kind)
    if pa.types.is_boolean(kind):
        return pa.array(values, pa.int64()).cast(pa.bool_())
    if pa.types.is_temporal(kind):
        # A zero date comes as None from the log and as text from a SELECT.
        array = pa.array([None if isinstance(each, str) else each for each in values], kind)
        if source == "timestamp":
            zero = pa.scalar(_EPOCH, kind)
            array = pc.if_else(pc.equal(array, zero), pa.scalar(None, kind), array)
        return array
    if pa.types.is_floating(kind) and source == "decimal":
        return pa.array([None if each is None else float(each) for each in values], kind)
    if pa.types.is_string(kind) and source not in _TEXT:
        return pa.array([_text(each) for each in values], kind)
    return pa.array(values, kind)


def _whole(value: Any, column: SourceColumn) -> bytes:
    """Bytes in full: the log leaves out zeros at the end of a value of fixed length."""
    if column.type == "uuid":
        # A SELECT gives its text, the log its bytes; none at all come as an empty text.
        return (
            UUID(value).bytes
            if isinstance(value, str) and value
            else (value or b"").ljust(16, b"\0")
        )
    length = _LENGTH.match(column.written)
    return (value or b"").ljust(int(length[1]) if length else 0, b"\0")


def _text(value: Any) -> str | None:
    """A personal value of another type than text, as MySQL would print it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, date, Decimal)):
        return str(value)
    raise pa.ArrowInvalid(f"a {type(value).__name__} has no plain text form")
