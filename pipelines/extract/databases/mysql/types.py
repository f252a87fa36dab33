"""Which declared types the columns of a MySQL or MariaDB table fit."""

from __future__ import annotations

import re

from pipelines.extract.schema import SourceColumn, unfit_decimal

DIGITS = {
    "tinyint": 3, "tinyint unsigned": 3, "smallint": 5, "smallint unsigned": 5,
    "mediumint": 7, "mediumint unsigned": 8, "int": 10, "int unsigned": 10,
    "bigint": 19, "bigint unsigned": 20,
}  # fmt: skip
_INT16 = {"tinyint", "tinyint unsigned", "smallint"}
_INT32 = set(DIGITS) - {"int unsigned", "bigint", "bigint unsigned"}
TEXT = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"}
BYTES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_ACCEPTED = {
    "int16": _INT16,
    "int32": _INT32,
    "uint32": {name for name in DIGITS if " " in name} - {"bigint unsigned"},
    "uint64": {name for name in DIGITS if " " in name},
    "int64": set(DIGITS) - {"bigint unsigned"},
    "float64": {*DIGITS, "float", "double", "decimal"},
    "bool": {"tinyint(1)"},
    "uuid": {"uuid"},
    "json": {"longtext"},
    "bytes": BYTES,
    "date": {"date"},
    "timestamp": {"datetime", "timestamp"},
    "string": {*TEXT, *DIGITS},
}
_DECIMAL = re.compile(r"^decimal\((\d+), ?(\d+)\)")


def unfit(kind: str, column: SourceColumn) -> str:
    """Why values of a column may not fit a declared type; empty where they do."""
    if match := _DECIMAL.match(kind):
        wrong = unfit_decimal(match, column, DIGITS, _DECIMAL)
        return "accepted: decimal and integers" if wrong is None else wrong
    accepted = _ACCEPTED[kind]
    if column.type in accepted or column.written.split(" ")[0] in accepted:
        return ""
    return f"accepted: {', '.join(sorted(accepted))}"
