"""The tiny shop with triggers in a MariaDB or SQLite database of its own, and writers for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import make_url

from benchmarks.servers import mariadb as mariadb_server
from benchmarks.servers.mariadb import MariadbServer
from pipelines import extract
from pipelines.extract.modes import mode
from pipelines.extract.source import Position
from pipelines.extract.trigger.numbered.sql import microseconds
from pipelines.shared.declaration import Shop
from pipelines.shared.intervals import utc
from pipelines.shared.settings import Settings
from tests.extract import mariadb_shop
from tests.extract.postgres_shop import DECLARED
from tests.extract.postgres_shop import tiny as tiny_in_postgres

SQLITE_TABLES = """
    CREATE TABLE users (uid text PRIMARY KEY, email text, city text);
    CREATE TABLE articles (sku text PRIMARY KEY, kind text, maker text, amount numeric(10, 2));
    CREATE TABLE shown (list_id text, sku text, uid text, place integer, shown_at datetime,
                        PRIMARY KEY (list_id, sku));
    CREATE TABLE actions (action_id text PRIMARY KEY, type text, uid text, sku text,
                          at datetime, pieces integer, paid numeric(10, 2));
"""


def settings_for(folder: Path, url: str) -> Settings:
    return Settings(
        lake=str(folder / "lake"),
        ledger_url=f"sqlite:///{folder}/ledger.db",
        mlflow_uri="",
        connections={"tiny": url},
        shops=DECLARED,
        pseudonym_key="a key for tests",
    )


@dataclass
class TriggerShop:
    """A shop's database under trigger capture."""

    url: str
    shop: Shop
    connect: Callable[[], Any]
    """A further autocommit connection."""
    hole: str
    """How a bound value is written."""

    def run(self, *statements: str, db: Any = None) -> list[tuple[Any, ...]]:
        """Run statements, each a transaction of its own unless the connection has one open."""
        own = db or self.connect()
        cursor = own.cursor()
        for statement in statements:
            cursor.execute(statement)
        rows = list(cursor.fetchall())
        if db is None:
            own.close()
        return [tuple(row) for row in rows]

    def stamp(self, db: Any, at: datetime | None) -> None:
        """Stamp what the connection writes from now on with a time; None: the server's own."""
        if self.url.startswith("sqlite"):
            db.execute("DELETE FROM freshrank_tiny_clock")
            if at is not None:
                db.execute(f"INSERT INTO freshrank_tiny_clock VALUES ({microseconds(at)})")
            return
        value = "DEFAULT" if at is None else f"{at.timestamp():.6f}"
        db.cursor().execute(f"SET timestamp = {value}")

    def install(self, at: datetime | None = None) -> list[str]:
        return extract.install(self.url, self.shop, at)

    def source(self) -> Any:
        return mode(self.url, self.shop).source(self.url, self.shop, settings_for(Path(), self.url))

    def take(
        self,
        before: datetime | str = "2100-01-01",
        after: Position | None = None,
        upto: Position | None = None,
        table: str = "articles",
    ) -> tuple[pa.Table, Position]:
        end = utc(before) if isinstance(before, str) else before
        with self.source().changes(table, end, after, upto) as taken:
            return pa.Table.from_batches(list(taken.batches), taken.schema), taken.position

    def ops(self, table: str = "articles", column: str = "sku") -> list[tuple[str, str]]:
        changes, _ = self.take(table=table)
        return list(zip(changes["_op"].to_pylist(), changes[column].to_pylist(), strict=True))


def _shop(schema: str) -> Shop:
    shop = tiny_in_postgres()
    changed = {"capture": "trigger", "schema_name": schema}
    source = shop.source.model_copy(update=changed)
    return shop.model_copy(update={"sources": {shop.source_name: source}})


@contextmanager
def in_mariadb(server: MariadbServer, tables: str = mariadb_shop.TABLES) -> Iterator[TriggerShop]:
    with mariadb_server.database(server, tables) as url:
        shop = _shop(str(make_url(url).database))
        yield TriggerShop(url, shop, lambda: mariadb_server.connect(url), "%s")


@contextmanager
def in_sqlite(folder: Path, tables: str = SQLITE_TABLES) -> Iterator[TriggerShop]:
    path = folder / "shop.db"

    def connect() -> Any:
        return sqlite3.connect(path, timeout=30, isolation_level=None)

    db = connect()
    db.execute("PRAGMA journal_mode = wal")
    db.executescript(tables)
    db.close()
    yield TriggerShop(f"sqlite:///{path}", _shop("public"), connect, "?")


def only(shop: Shop, table: str, declared: dict[str, Any]) -> Shop:
    """The shop with one captured table; the rest of the declaration stays as it is."""
    given = shop.model_dump(by_alias=True, mode="python")
    given["tables"][table] = declared
    whole = Shop.model_validate(given)
    return whole.model_copy(update={"tables": {table: whole.tables[table]}})
