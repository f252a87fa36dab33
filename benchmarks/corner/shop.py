"""The corner shop: goods and their sales, in any database, with what was extracted of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.dialects import mysql

from benchmarks.corner.modes import GOODS, SALES, AnyInterval, CaptureMode, declared
from benchmarks.servers import mariadb, postgres
from pipelines import extract
from pipelines.extract.modes import mode
from pipelines.extract.source import ChangeSource
from pipelines.shared.columns import DELETE, INSERT, OP, POSITION
from pipelines.shared.declaration import Shop
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.settings import Settings


@dataclass
class Corner:
    """The shop's database, its captured changes, and what a test does with both."""

    mode: CaptureMode
    url: str
    shop: Shop
    folder: Path
    choose_time: bool = False
    second: int | None = field(default=None, init=False)
    """The time of commits, where the test chooses it; it moves on with each cut."""
    engine: sa.Engine = field(init=False)
    tables: dict[str, sa.Table] = field(init=False)

    def __post_init__(self) -> None:
        level = {} if self.url.startswith("sqlite") else {"isolation_level": "READ COMMITTED"}
        waiting = {"timeout": 60} if self.url.startswith("sqlite") else {}
        self.engine = sa.create_engine(
            self.url, poolclass=sa.NullPool, connect_args=waiting, **level
        )
        self.tables = _tables()
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        self.tables[GOODS].metadata.create_all(self.engine)
        if self.mode.whole_seconds or (self.choose_time and self.mode.clock):
            self.second = int(time.time()) + 1  # Later than the tables, which the log has too.

    @property
    def settings(self) -> Settings:
        return self.settings_of(self.url, self.folder)

    @staticmethod
    def settings_of(url: str, folder: Path) -> Settings:
        """The settings of an installation in a folder."""
        return Settings(
            lake=str(folder / "lake"),
            ledger_url=SecretStr(f"sqlite:///{folder}/ledger.db"),
            mlflow_uri=SecretStr(""),
            connections={"corner": SecretStr(url)},
        )

    @property
    def source(self) -> ChangeSource:
        return mode(self.url, self.shop).source(self.url, self.shop, self.settings)

    def install(self) -> list[str]:
        installed = extract.install(self.url, self.shop)
        self.cut()
        return installed

    def run(self, interval: Interval, folder: Path | None = None) -> AnyInterval:
        return AnyInterval(self.settings_of(self.url, folder or self.folder), self.shop, interval)

    def now(self) -> datetime:
        """The application's clock."""
        return datetime.now(UTC) if self.second is None else self._moment()

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self.second or 0, UTC)

    def cut(self, whole: bool = False) -> datetime:
        """An interval's end, after everything committed; `whole`: at the start of a second."""
        if self.second is not None:
            self.second += 1
            # As in any shop that is open, something follows; it is not of a declared table.
            self.write(self.tables["beats"].insert())
            return self._moment()
        now = self._clock()
        least = now + timedelta(microseconds=1)
        if whole:
            least = now.replace(microsecond=0) + timedelta(seconds=1)
        while (now := self._clock()) < least:
            time.sleep(0.002)
        return least if whole else now

    def _clock(self) -> datetime:
        return datetime.now(UTC) if self.mode.capture == "cursor" else self.source.clock()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """An open transaction, committed in the end; an error, or `rollback`, undoes it."""
        with self.engine.connect() as connection:
            if self.second is not None and self.mode.stamp:
                connection.exec_driver_sql(self.mode.stamp.format(second=self.second))
            yield connection
            connection.commit()

    def write(self, *statements: Any) -> None:
        """One transaction."""
        with self.transaction() as connection:
            for statement in statements:
                connection.execute(statement)

    def put(self, connection: sa.Connection, sku: str, **values: Any) -> None:
        """Write one of the goods, whether or not it is there."""
        goods, values = self.tables[GOODS], {"touched": self.now()} | values
        known = connection.execute(goods.update().where(goods.c.sku == sku).values(values))
        if not known.rowcount:
            connection.execute(goods.insert().values(sku=sku, **values))

    def add(self, *skus: str, **values: Any) -> None:
        """New goods, in one transaction."""
        rows = [{"sku": sku, "touched": self.now()} | values for sku in skus]
        self.write(self.tables[GOODS].insert().values(rows))

    def erase(self, connection: sa.Connection, sku: str) -> None:
        goods = self.tables[GOODS]
        connection.execute(goods.delete().where(goods.c.sku == sku))

    def present(self, table: str = GOODS) -> pa.Table:
        """What the source's table holds, by key, in the types that are stored."""
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(self.tables[table])).mappings().all()
        return self._state(table, found)

    def _state(self, table: str, rows: Iterable[Any]) -> pa.Table:
        declared = self.shop.tables[table]
        schema = pa.schema(list(declared.stored_columns().items()))
        ordered = sorted(rows, key=lambda row: [row[name] for name in declared.key])
        return pa.table({name: [row[name] for row in ordered] for name in schema.names}, schema)


class Fold:
    """The rows of a table as its changes tell, one interval after the other."""

    def __init__(self, corner: Corner, table: str) -> None:
        self._corner, self._table = corner, table
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(self, changes: pa.Table) -> None:
        key = self._corner.shop.tables[self._table].key
        places = changes[POSITION].to_pylist()
        assert len(set(places)) == len(places)
        for row in changes.sort_by(POSITION).to_pylist():
            own = tuple(row[name] for name in key)
            assert (own in self._rows) == (row[OP] != INSERT), row
            if row[OP] == DELETE:
                del self._rows[own]
            else:
                self._rows[own] = row

    def state(self) -> pa.Table:
        return self._corner._state(self._table, self._rows.values())


def same(left: pa.Table, right: pa.Table) -> None:
    """Compare by content; say which rows differ."""
    if content_hash(left) != content_hash(right):
        ours, theirs = ({repr(row)[:300] for row in each.to_pylist()} for each in (left, right))
        raise AssertionError(f"only left {ours - theirs}, only right {theirs - ours}")


def _tables() -> dict[str, sa.Table]:
    """Tables as each database would have them: exact text keys, large texts, microseconds."""
    ours = ("mysql", "mariadb")
    text = sa.String(60).with_variant(mysql.VARCHAR(60, collation="utf8mb4_bin"), *ours)
    moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), *ours)
    metadata = sa.MetaData()
    made = [
        sa.Table(
            GOODS, metadata,
            sa.Column("sku", text, primary_key=True),
            sa.Column("note", sa.Text().with_variant(mysql.LONGTEXT(), *ours)),
            sa.Column("amount", sa.Numeric(10, 2)),
            sa.Column("stock", sa.BigInteger),
            sa.Column("touched", moment, index=True, nullable=False),
        ),
        sa.Table(
            SALES, metadata,
            sa.Column("basket", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("sku", text, primary_key=True),
            sa.Column("shopper", sa.Text),
            sa.Column("touched", moment, index=True, nullable=False),
        ),
        sa.Table("beats", metadata, sa.Column("beat", sa.Integer, primary_key=True)),
    ]  # fmt: skip
    return {table.name: table for table in made}


@contextmanager
def opened(
    mode: CaptureMode, server: Any, folder: Path, choose_time: bool = False
) -> Iterator[Corner]:
    """An empty shop whose changes are captured; everything is removed in the end.

    With `choose_time`, commits get the time `Corner.second`, where the mode can.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if mode.server == "":
        yield _captured(mode, f"sqlite:///{folder}/shop.db", "public", folder, choose_time)
        return
    if mode.server == "mariadb":
        with mariadb.database(server) as url:
            # Chosen times run ahead of the server's: no other test's log may hold them.
            server.execute("FLUSH BINARY LOGS")
            yield _captured(mode, url, str(sa.make_url(url).database), folder, choose_time)
            server.execute("FLUSH BINARY LOGS")
        return
    with postgres.database(server, "SELECT 1") as url:
        corner = _captured(mode, url, "public", folder, choose_time)
        try:
            yield corner
        finally:
            extract.remove(url, corner.shop)


def _captured(mode: CaptureMode, url: str, schema: str, folder: Path, choose_time: bool) -> Corner:
    corner = Corner(mode, url, declared(mode, schema), folder, choose_time)
    corner.install()
    return corner
