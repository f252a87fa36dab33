"""Every capture mode, on every server it is promised for, behind one face.

A further mode is one more entry of `MODES`. The shop is the same everywhere: goods and their sales.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.dialects import mysql

from pipelines import extract
from pipelines.extract.modes import mode
from pipelines.extract.source import ChangeSource, Position
from pipelines.shared.columns import DELETE, INSERT, OP, POSITION
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings

GOODS, SALES = "goods", "sales"
_COLUMNS = {
    GOODS: {"sku": "string", "note": "string", "amount": "decimal(10,2)", "stock": "int64",
            "touched": "timestamp"},
    SALES: {"basket": "int64", "sku": "string", "shopper": "string", "touched": "timestamp"},
}  # fmt: skip
_KEYS = {GOODS: ["sku"], SALES: ["basket", "sku"]}
_DECLARED: dict[str, Any] = {
    "shop": "corner",
    "title": "A corner shop",
    "shopper": {"table": SALES, "id": "shopper"},
    "item": {"table": GOODS, "id": "sku", "category": "note"},
    "events": [
        {"kind": "sale", "grade": 1, "table": SALES, "time": "touched", "shopper": "shopper",
         "item": "sku", "group": "basket"}
    ],
    "surfaces": [{"name": "basket", "candidates": "generated", "groups_of": "sale"}],
    "interval": {"anchor": "2017-01-02", "days": 1},
}  # fmt: skip


@dataclass(frozen=True)
class CaptureMode:
    """A capture mode on a server, and what it promises there."""

    capture: str
    server: str
    """Fixture of the server; empty: a file."""
    versions: bool = True
    """Every change of a row comes, not only its last state before an extraction."""
    whole: bool = True
    """A transaction lies in the same interval of every table, whenever it commits."""
    stamp: str = ""
    """Gives a transaction the time {second}, where the mode goes by the session's clock."""
    whole_seconds: bool = False
    """Commit times are whole seconds."""
    named: bool = True
    """A change tells which transaction it is of."""
    parallel: bool = True
    """Several transactions can write at once."""
    truncate: type[Exception] | None = None
    """What a TRUNCATE is refused with; None: it is the delete of every row."""

    def __str__(self) -> str:
        return f"{self.capture}-{self.server or 'sqlite'}"

    @property
    def clock(self) -> bool:
        """Whether a test can choose the time of commits."""
        return bool(self.stamp) or self.capture == "cursor"


MODES = [
    CaptureMode("trigger", "postgres",
        stamp="SELECT set_config('freshrank.clock', to_timestamp({second})::text, true)"),
    CaptureMode("trigger", "mariadb", stamp="SET timestamp = {second}", truncate=CaptureMissing),
    CaptureMode("trigger", "", whole=False, named=False, parallel=False),
    CaptureMode("wal", "logical_postgres", truncate=CaptureMissing),
    CaptureMode("wal", "debian_postgres", truncate=CaptureMissing),
    CaptureMode("binlog", "mariadb", stamp="SET timestamp = {second}", whole_seconds=True,
        truncate=SchemaDrift),
    CaptureMode("cursor", "", versions=False, whole=False, parallel=False),
    CaptureMode("cursor", "postgres", versions=False, whole=False),
    CaptureMode("cursor", "mariadb", versions=False, whole=False),
]  # fmt: skip


def declared(mode: CaptureMode, schema: str) -> Shop:
    """The shop as it is captured; a cursor finds deletes by reconciling."""
    tables: dict[str, Any] = {
        name: {"key": _KEYS[name], "columns": columns} for name, columns in _COLUMNS.items()
    }
    if mode.capture == "cursor":
        for table in tables.values():
            table["cursor"] = {"column": "touched", "reconcile": True}
    source = {"connection": "corner", "capture": mode.capture, "schema": schema}
    return Shop.model_validate_json(
        json.dumps(_DECLARED | {"sources": {"shop": source}, "tables": tables})
    )


class AnyInterval(Run):
    """A run whose interval need not lie on the shop's grid."""

    @cached_property
    def steps(self) -> tuple[Interval, ...]:
        return (self.interval,)


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
            mlflow_uri="",
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
        """An interval's end: after everything committed, and not after what begins now.

        Args:
            whole: at the beginning of a second.
        """
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

    def take(
        self,
        before: datetime | None = None,
        after: Position | None = None,
        upto: Position | None = None,
        table: str = GOODS,
    ) -> tuple[pa.Table, Position]:
        """The changes before a time, by default all there are, and the position after them."""
        with self.source.changes(table, before or self.cut(), after, upto) as taken:
            rows = pa.Table.from_batches(list(taken.batches), taken.schema)
        return rows, json.loads(json.dumps(taken.position))

    def checked(self, after: Position) -> tuple[pa.Table, Position]:
        """The changes as the stage takes them, which looks at the table first."""
        self.source.check(GOODS)
        return self.take(None, after)

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

    def folded(self, pieces: Iterable[pa.Table], table: str = GOODS) -> pa.Table:
        """What changes lead to, interval by interval, each applied in the order of its places."""
        fold = Fold(self, table)
        for piece in pieces:
            fold.add(piece)
        return fold.state()


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


def skus(changes: pa.Table) -> list[Any]:
    return changes["sku"].to_pylist()


def news(changes: pa.Table) -> list[tuple[Any, Any]]:
    return list(zip(changes[OP].to_pylist(), skus(changes), strict=True))


class Busy:
    """Shop assistants at work: threads that write to both tables in every transaction.

    Goods `hot …` are counted up by all of them in turn; others come, change, are renamed and go;
    some transactions are rolled back.
    """

    def __init__(self, corner: Corner, count: int = 3, pause_s: float = 0.004) -> None:
        self._corner, self._pause = corner, pause_s
        self._stop, self.open = threading.Event(), threading.Event()
        self.open.set()
        """While it is clear, no transaction is open, once `paused`."""
        self._own = [threading.Lock() for _ in range(count)]
        self.failed: list[BaseException] = []
        self.written = 0
        name = uuid.uuid4().hex[:6]
        self._threads = [
            threading.Thread(target=self._work, args=[f"{name} {number}", number])
            for number in range(count)
        ]

    def __enter__(self) -> Busy:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.open.set()
        for each in self._threads:
            each.join()
        if self.failed:
            raise self.failed[0]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody writes inside the block."""
        self.open.clear()
        for lock in self._own:
            lock.acquire()
        try:
            yield
        finally:
            self.open.set()
            for lock in self._own:
                lock.release()

    def work_on(self, transactions: int) -> None:
        """Wait until so many more are committed."""
        until = self.written + transactions
        while self.written < until and not self.failed:
            time.sleep(0.002)

    def _work(self, name: str, writer: int) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                self.open.wait()
                number += 1
                with self._own[writer]:
                    self._serve(name, number)
                time.sleep(self._pause)
        except BaseException as error:  # noqa: BLE001 -- raised where the block ends
            self.failed.append(error)

    def _serve(self, name: str, number: int) -> None:
        corner = self._corner
        goods, sales = corner.tables[GOODS], corner.tables[SALES]
        own = f"{name}/{number % 7}"
        with suppress(_Undone), corner.transaction() as connection:
            touched = corner.now()
            hot = goods.update().where(goods.c.sku == f"hot {number % 3}")
            connection.execute(hot.values(stock=goods.c.stock + 1, touched=touched))
            corner.put(connection, own, note=f"note {number}", amount=number % 100, stock=number)
            sale = {"basket": hash((name, number)) % 2**40, "sku": own, "touched": touched}
            connection.execute(sales.insert().values(shopper=name, **sale))
            if number % 3 == 0:
                self._rename(connection, own, f"{own}!")
            if number % 4 == 0:
                corner.erase(connection, f"{own}!")
            if number % 5 == 0:
                raise _Undone
        self.written += number % 5 > 0

    def _rename(self, connection: sa.Connection, sku: str, to: str) -> None:
        goods = self._corner.tables[GOODS]
        self._corner.erase(connection, to)
        renamed = goods.update().where(goods.c.sku == sku)
        connection.execute(renamed.values(sku=to, touched=self._corner.now()))


class _Undone(Exception):
    """The transaction is not to be."""


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

    Args:
        server: what the fixture `mode.server` gives.
        choose_time: commits get the time `Corner.second`, where the mode can.
    """
    from tests.extract import mariadb_server, postgres_shop

    folder.mkdir(parents=True, exist_ok=True)
    if mode.server == "":
        yield _captured(mode, f"sqlite:///{folder}/shop.db", "public", folder, choose_time)
        return
    if mode.server == "mariadb":
        with mariadb_server.database(server, "") as url:
            # Chosen times run ahead of the server's: no other test's log may hold them.
            server.execute("FLUSH BINARY LOGS")
            yield _captured(mode, url, str(sa.make_url(url).database), folder, choose_time)
            server.execute("FLUSH BINARY LOGS")
        return
    with postgres_shop.database(server, "SELECT 1") as url:
        corner = _captured(mode, url, "public", folder, choose_time)
        try:
            yield corner
        finally:
            extract.remove(url, corner.shop)


def _captured(mode: CaptureMode, url: str, schema: str, folder: Path, choose_time: bool) -> Corner:
    corner = Corner(mode, url, declared(mode, schema), folder, choose_time)
    corner.install()
    return corner
