"""Reads the table of changes in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from pipelines.extract.databases import values
from pipelines.extract.databases.sqlite import catalogue
from pipelines.extract.databases.sqlite.connection import connect
from pipelines.extract.databases.sqlite.values import array
from pipelines.extract.source import EPOCH
from pipelines.extract.trigger.numbered.source import in_batches, mismatch, missing
from pipelines.extract.trigger.numbered.sql import LogTable, housekeeping, prefix
from pipelines.extract.trigger.numbered.sqlite.sql import NOW, TRIGGERS, SqliteTable
from pipelines.shared.declaration import Shop


class SqliteSession:
    """See `numbered.source.Session`; what differs here is said at each method."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, bound: Any = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, bound).fetchall()

    def stream(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        """Rows as they are read, few at a time where they are large."""
        yield from in_batches(self._connection.execute(statement))

    def now(self, shop: Shop) -> datetime:
        """The machine's time, or the one that a replay has set in `freshrank_<shop>_clock`."""
        clock = NOW
        if f"{prefix(shop)}clock" in self.tables(shop):
            clock = f"coalesce((SELECT max(at) FROM {housekeeping(shop, 'clock')}), {NOW})"
        ((now,),) = self.rows(f"SELECT {clock}")
        return EPOCH + timedelta(microseconds=now)

    def tables(self, shop: Shop) -> set[str]:
        return catalogue.tables(self._connection)

    def drift(self, shop: Shop, table: str) -> list[str]:
        return catalogue.drift(self._connection, shop, table)

    def log(self, shop: Shop, table: str) -> SqliteTable:
        """Names and SQL for a table, by the unique indexes that it has."""
        info = self.rows("SELECT name, pk FROM pragma_table_info(?) ORDER BY pk", (table,))
        uniques = {tuple(name for name, pk in info if pk), tuple(shop.tables[table].key)}
        unique = 'SELECT name FROM pragma_index_list(?) WHERE "unique"'
        for (index,) in self.rows(unique, (table,)):
            named = self.rows("SELECT name FROM pragma_index_info(?)", (index,))
            uniques.add(tuple(name for (name,) in named))
        return SqliteTable(shop, table, tuple(sorted(uniques - {()}, key=str)))

    def selected(self, log: LogTable) -> str:
        """The stored columns, as they are."""
        return log.values("c")

    def arrays(self, log: LogTable, rows: list[tuple[Any, ...]], key: bytes) -> list[Any]:
        return values.arrays(log.declared, rows, key, lambda _, each, kind: array(each, kind))

    def fault(self, shop: Shop, table: str) -> str:
        if f"{prefix(shop)}captures" not in self.tables(shop):
            return missing(table)
        log = self.log(shop, table)
        if any(None in names for names in log.uniques):
            return (
                f"{table} has a unique index on an expression, through which REPLACE removes rows "
                "unseen; make it a unique index on columns, or use `capture: cursor`"
            )
        captures = housekeeping(shop, "captures")
        known = self.rows(f"SELECT definition FROM {captures} WHERE table_name = ?", (table,))
        if not known:
            return missing(table)
        names = [f"{prefix(shop)}replaced_{table}", *map(log.trigger, TRIGGERS)]
        holes = ", ".join("?" * len(names))
        there = self.rows(f"SELECT sql FROM sqlite_master WHERE name IN ({holes})", names)
        whole = sorted(log.create_triggers()) == sorted(str(sql) for (sql,) in there)
        if known[0][0] != log.definition or not whole:
            return mismatch(table)
        return ""

    def settled(self, shop: Shop) -> bool:
        """There is one writer at a time: what was seen is all there was."""
        return True

    def held(self, log: LogTable, due: str, before: int) -> list[int]:
        """None: SQLite does not tell a trigger which transaction it runs in."""
        return []

    def begin(self) -> None:
        """One deferred transaction, begun by a first read."""
        self.rows("BEGIN")
        self.rows("SELECT count(*) FROM sqlite_master")

    def forget(self, shop: Shop, before: datetime) -> None:
        """Nothing is kept about transactions."""


@contextmanager
def opened(url: str) -> Iterator[SqliteSession]:
    """A session on the shop's file, for reading only; raises what `connect` raises."""
    with connect(url) as connection:
        yield SqliteSession(connection)


@contextmanager
def writing(url: str) -> Iterator[SqliteSession]:
    """The same, for writing too."""
    with connect(url, write=True) as connection:
        yield SqliteSession(connection)
