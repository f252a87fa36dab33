"""Real PostgreSQL servers that write a logical log, and the tiny shop captured from it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.servers.postgres import connect
from local.servers import postgres
from local.servers.postgres import PostgresServer
from pipelines import extract
from pipelines.extract.source import Position
from pipelines.extract.wal.source import WalSource
from pipelines.shared.declaration import Shop
from pipelines.shared.settings import Settings
from tests.extract.postgres_shop import DECLARED, TABLES, database, tiny

LOGICAL = {"wal_level": "logical", "max_replication_slots": "20"}
DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@contextmanager
def wal_server(kind: str, path: Path) -> Iterator[PostgresServer]:
    """The bundled server, or Debian's newest where it is installed."""
    programs = None
    if kind == "debian":
        if not DEBIAN and not os.environ.get("CI"):
            pytest.skip("install the Debian package postgresql to test its server")
        programs = DEBIAN[-1].parent
    with postgres.server(path, LOGICAL, programs) as server:
        yield server


def wal_shop(tables: dict[str, Any] | None = None, schema: str = "web") -> Shop:
    """The tiny shop, captured from the log, plus further tables."""
    declared = tiny().model_dump(by_alias=True, mode="python")
    declared["sources"]["shop"] |= {"capture": "wal", "schema": schema}
    declared["tables"] |= tables or {}
    declared["interval"]["anchor"] = date(2017, 1, 2)
    return Shop.model_validate(declared)


@dataclass
class WalShop:
    """A database, its source, and what a test does with them."""

    url: str
    shop: Shop
    settings: Settings
    db: Any

    @property
    def source(self) -> WalSource:
        return WalSource(self.url, self.shop, self.settings)

    def now(self) -> datetime:
        """A time between what was committed and what will be."""
        moment: datetime = self.db.execute("SELECT clock_timestamp()").fetchone()[0]
        time.sleep(0.002)
        return moment.astimezone(UTC)

    def run(self, *statements: str) -> None:
        """One transaction."""
        with self.db.transaction():
            for statement in statements:
                self.db.execute(statement)

    def take(
        self,
        before: datetime | None = None,
        after: Position | None = None,
        upto: Position | None = None,
        table: str = "articles",
    ) -> tuple[pa.Table, Position]:
        with self.source.changes(table, before or self.now(), after, upto) as taken:
            return pa.Table.from_batches(list(taken.batches), taken.schema), taken.position

    def install(self) -> list[str]:
        installed = extract.install(self.url, self.shop)
        self.now()
        return installed

    def rows(self, table: str = "articles") -> list[tuple[Any, ...]]:
        """What the table holds, by the declared columns."""
        names = ", ".join(self.shop.tables[table].stored_columns())
        schema = self.shop.source.schema_name
        found = self.db.execute(f"SELECT {names} FROM {schema}.{table}").fetchall()
        return sorted(found, key=str)

    def folded(self, *pieces: pa.Table, table: str = "articles") -> list[tuple[Any, ...]]:
        """What the changes, applied in the order of their places, lead to."""
        declared = self.shop.tables[table]
        names = list(declared.stored_columns())
        state: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for row in pa.concat_tables(pieces).sort_by("_position").to_pylist():
            key = tuple(row[name] for name in declared.key)
            assert (key in state) == (row["_op"] != "insert"), row
            if row["_op"] == "delete":
                del state[key]
            else:
                state[key] = tuple(row[name] for name in names)
        return sorted(state.values(), key=str)

    def slots(self) -> int:
        """Slots of the database, once those of ended sessions are gone."""
        query = "SELECT temporary FROM pg_replication_slots WHERE database = current_database()"
        until = time.monotonic() + 5
        found = self.db.execute(query).fetchall()
        while (True,) in found and time.monotonic() < until:
            time.sleep(0.01)
            found = self.db.execute(query).fetchall()
        return len(found)


@contextmanager
def captured(
    server: PostgresServer, folder: Path, shop: Shop | None = None, tables: str = TABLES
) -> Iterator[WalShop]:
    """A database with the shop's tables, captured; everything is removed in the end."""
    shop = shop or wal_shop()
    with database(server, tables) as url, connect(url) as db:
        settings = Settings(
            lake=str(folder / "lake"),
            ledger_url=f"sqlite:///{folder}/ledger.db",
            mlflow_uri="",
            connections={shop.source.connection: url},
            shops=DECLARED,
            pseudonym_key="a key for tests",
        )
        made = WalShop(url, shop, settings, db)
        made.install()
        try:
            yield made
        finally:
            extract.remove(url, shop)
            assert made.slots() == 0
