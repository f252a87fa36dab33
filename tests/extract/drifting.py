"""One table `goods`, captured in any mode from a real database, whose columns a test changes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from sqlalchemy import make_url

from benchmarks.servers import mariadb as mariadb_server
from benchmarks.servers.mariadb import MariadbServer
from benchmarks.servers.postgres import connect
from local.servers.postgres import PostgresServer
from pipelines import extract
from pipelines.extract.modes import mode
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings
from tests.extract.postgres_shop import DECLARED, database

MODES = (
    "trigger postgresql", "trigger mariadb", "trigger sqlite", "wal postgresql", "binlog mariadb",
    "cursor sqlite",
)  # fmt: skip
"""Capture modes, each with the database that it is tested on."""
_TINY = (DECLARED / "tiny" / "shop.yaml").read_text()
_TOUCHED = {"postgresql": "clock_timestamp()", "mysql": "utc_timestamp(6)",
            "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now')"}  # fmt: skip


class OneStep(Run):
    """A run of any interval, on the shop's grid or not."""

    @cached_property
    def steps(self) -> tuple[Interval, ...]:
        return (self.interval,)


@dataclass
class Goods:
    """The table, its source, and what a test does with them."""

    url: str
    capture: str
    schema: str
    folder: Path
    execute: Callable[[str, tuple[Any, ...]], Any]
    table: dict[str, Any] = field(default_factory=dict)
    ends: list[datetime] = field(default_factory=list)

    @property
    def dialect(self) -> str:
        return make_url(self.url).get_backend_name().replace("mariadb", "mysql")

    @property
    def settings(self) -> Settings:
        return Settings(
            lake=str(self.folder / "lake"),
            ledger_url=f"sqlite:///{self.folder}/ledger.db",
            mlflow_uri="",
            connections={"goods": self.url},
            pseudonym_key="a key for tests",
        )

    @property
    def shop(self) -> Shop:
        declared = yaml.safe_load(_TINY)
        source = {"connection": "goods", "capture": self.capture, "schema": self.schema}
        declared["sources"] = {"goods": source, "rest": declared["sources"]["shop"]}
        for table in declared["tables"].values():
            table["source"] = "rest"
        declared["tables"]["goods"] = self.table | {"source": "goods"}
        return Shop.model_validate(declared)

    @property
    def run(self) -> Run:
        """The run of the last interval."""
        return OneStep(self.settings, self.shop, Interval(*self.ends[-2:]))

    def declare(self, columns: dict[str, str], **options: Any) -> None:
        self.table = {"key": ["id"], "columns": {"id": "int64", **columns}, **options}
        if self.capture == "cursor":
            self.table["columns"]["touched"] = "timestamp"
            self.table["cursor"] = {"column": "touched", "lag_s": 0}

    def create(self, columns: str) -> None:
        touched = {"postgresql": "timestamptz", "mysql": "datetime(6)", "sqlite": "datetime"}
        more = f", touched {touched[self.dialect]} NOT NULL" if self.capture == "cursor" else ""
        self.execute(f"CREATE TABLE {self.name} (id bigint PRIMARY KEY, {columns}{more})", ())

    @property
    def name(self) -> str:
        return f"{self.schema}.goods" if self.dialect == "postgresql" else "goods"

    def alter(self, change: str) -> None:
        self.execute(f"ALTER TABLE {self.name} {change}", ())

    def drop(self, column: str) -> None:
        if (self.capture, self.dialect) == ("trigger", "sqlite"):
            # SQLite drops no column that a trigger reads.
            extract.remove(self.url, self.shop.part("goods"))
        self.alter(f"DROP COLUMN {column}")

    def put(self, number: int, **values: Any) -> None:
        names, marks = (
            ["id", *values],
            ["?" if self.dialect == "sqlite" else "%s"] * (1 + len(values)),
        )
        if self.capture == "cursor":
            names.append("touched")
            marks.append(_TOUCHED[self.dialect])
        self.execute(
            f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({', '.join(marks)})",
            (number, *values.values()),
        )

    def install(self) -> None:
        extract.install(self.url, self.shop.part("goods"))
        if not self.ends:
            self.ends.append(datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1))

    def take(self) -> pa.Table:
        """Everything until now, as an interval of its own; where columns changed, install first."""
        now = datetime.now(UTC).replace(microsecond=0)
        self.ends.append(max(now, self.ends[-1]) + timedelta(seconds=1))
        part = self.shop.part("goods")
        source = mode(self.url, part).source(self.url, part, self.settings)
        while source.clock() <= self.ends[-1] + timedelta(milliseconds=20):
            time.sleep(0.02)
        try:
            extract.run(self.run, "goods")
        except Exception:
            self.ends.pop()
            raise
        lake = self.run.lake.read("changes/goods", [self.run.interval])
        return lake.sort_by("_position")

    def take_after_install(self) -> pa.Table:
        """`take`, where triggers have to be made anew because the stored columns changed."""
        if self.capture == "trigger":
            try:
                self.take()
            except CaptureMissing as error:
                assert "capture install" in str(error)  # noqa: PT017 -- other modes go on
            else:
                raise AssertionError("triggers that miss a column were not noticed")
            self.install()
        return self.take()

    @property
    def manifest(self) -> Manifest:
        found = self.run.ledger.manifest("extract", "goods", self.run.interval)
        assert found is not None
        return found


@contextmanager
def goods(request: pytest.FixtureRequest, folder: Path) -> Iterator[Goods]:
    """The table in an empty database of the request's mode; capture is removed in the end."""
    capture, database_kind = request.param.split()
    if database_kind == "mariadb":
        mariadb: MariadbServer = request.getfixturevalue("mariadb")
        # Other tests stamp their transactions with times to come: not in this file.
        mariadb.execute("FLUSH BINARY LOGS")
        with mariadb_server.database(mariadb, "") as url, mariadb_server.connect(url) as db:

            def execute(statement: str, values: tuple[Any, ...]) -> None:
                with db.cursor() as cursor:
                    cursor.execute(statement, values)

            yield Goods(url, capture, str(make_url(url).database), folder, execute)
    elif database_kind == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("logical_postgres")
        with database(postgres, "CREATE SCHEMA web") as url, connect(url) as db:
            made = Goods(url, capture, "web", folder, db.execute)
            try:
                yield made
            finally:
                if made.table:
                    extract.remove(url, made.shop.part("goods"))
    else:
        file = folder / "shop.db"
        with sqlite3.connect(file, isolation_level=None) as lite:
            yield Goods(f"sqlite:///{file}", capture, "public", folder, lite.execute)
        lite.close()
