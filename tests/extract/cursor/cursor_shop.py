"""A shop whose rows carry a cursor, in PostgreSQL, SQLite or a private MariaDB."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from local.processes import LOOPBACK, free_port
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


@contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """A private MariaDB on a free port of loopback; yields the URL of an empty database."""
    pytest.importorskip("pymysql", reason="needs pymysql")
    if not shutil.which("mariadbd") or not shutil.which("mariadb-install-db"):
        pytest.skip("needs mariadbd (Debian: mariadb-server)")
    data, port = folder / "data", free_port()
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root",
         "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True, capture_output=True, env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["mariadbd", "--no-defaults", f"--datadir={data}", "--user=root", f"--port={port}",
             f"--bind-address={LOOPBACK}", f"--socket={folder}/socket", "--skip-networking=0",
             f"--tmpdir={folder}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        engine = sa.create_engine(f"mysql+pymysql://root@{LOOPBACK}:{port}", poolclass=sa.NullPool)
        for _ in range(300):
            try:
                with engine.begin() as connection:
                    connection.exec_driver_sql("CREATE DATABASE shop CHARACTER SET utf8mb4")
                break
            except sa.exc.OperationalError:
                time.sleep(0.1)
        yield f"mysql+pymysql://root@{LOOPBACK}:{port}/shop"
    finally:
        process.terminate()
        process.wait(30)
