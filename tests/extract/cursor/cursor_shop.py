"""A shop whose rows carry a cursor, in PostgreSQL, SQLite or MariaDB."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pipelines.shared.declaration import Shop
from tests.extract.postgres_shop import tiny

COLUMNS = {
    "part": "int32",
    "sku": "string",
    "note": "string",
    "amount": "decimal(10,2)",
    "gone": "bool",
    "touched": "timestamp",
    "version": "int64",
}
GOODS: dict[str, Any] = {"key": ["part", "sku"], "columns": COLUMNS}
TIMED = {"column": "touched", "lag_s": 60, "deleted": "gone"}
NUMBERED = {"column": "version", "lag_n": 60, "deleted": "gone"}


def shop_with(cursor: dict[str, Any], goods: dict[str, Any] = GOODS, **source: Any) -> Shop:
    """The tiny shop, captured by cursor; its table `goods` has the given one."""
    declared = tiny().model_dump(by_alias=True, mode="python")
    declared["sources"]["shop"] |= {"capture": "cursor", "schema": "public"} | source
    for table in declared["tables"].values():
        table["columns"] |= {"touched": "timestamp"}
        table["cursor"] = {"column": "touched"}
    declared["tables"]["goods"] = goods | {"cursor": cursor}
    return Shop.model_validate(declared)


def goods_table(dialect: str) -> sa.Table:
    """The table as each database would have it: microseconds, decimals, text keys."""
    moment = sa.DateTime(timezone=True)
    if dialect == "mysql":
        from sqlalchemy.dialects.mysql import DATETIME

        moment = DATETIME(fsp=6)  # type: ignore[assignment]
    return sa.Table(
        "goods",
        sa.MetaData(),
        sa.Column("part", sa.Integer, primary_key=True),
        sa.Column("sku", sa.String(64), primary_key=True),
        sa.Column("note", sa.Text),
        sa.Column("amount", sa.Numeric(10, 2)),
        sa.Column("gone", sa.Boolean),
        sa.Column("touched", moment, index=True),
        sa.Column("version", sa.BigInteger, index=True),
    )
