"""Reads the table of changes in MariaDB and MySQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pymysql

from pipelines.extract.databases.mysql import catalogue
from pipelines.extract.databases.mysql import connection as server
from pipelines.extract.databases.mysql.values import array, selected
from pipelines.extract.databases.values import arrays
from pipelines.extract.source import INSTALL, microseconds
from pipelines.extract.trigger.numbered.mariadb.sql import (
    EVENTS,
    GATES,
    HOUSEKEEPING,
    MariadbTable,
)
from pipelines.extract.trigger.numbered.source import in_batches, mismatch, missing
from pipelines.extract.trigger.numbered.sql import LogNames, LogTable, housekeeping, prefix
from pipelines.shared.columns import TRANSACTION
from pipelines.shared.declaration import Shop

_TRIES = 20
_PAUSE_S = 0.005
_NEEDS_LOCK = {1205, 3572}
_CASCADES = """
    SELECT constraint_name, referenced_table_name FROM information_schema.referential_constraints
    WHERE constraint_schema = %s AND table_name = %s
          AND (delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
               OR update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT'))
"""
_KINDS = """
    SELECT column_name, column_type, character_set_name, collation_name, data_type
    FROM information_schema.columns WHERE table_schema = %s AND table_name = %s
"""


class MariadbSession:
    """See `numbered.source.Session`; what differs here is said at each method."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._columns: dict[str, Any] = {}

    def rows(self, statement: str, bound: Any = ()) -> list[tuple[Any, ...]]:
        return server.rows(self._connection, statement, bound or None)

    def stream(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        """Rows as the server sends them, few at a time where they are large."""
        # Never closed: that would read what is left, also from a connection that was cut.
        cursor = self._connection.cursor(pymysql.cursors.SSCursor)
        cursor.execute(statement)
        yield from in_batches(cursor)

    def now(self, shop: Shop) -> datetime:
        """The server's time."""
        return server.now(self._connection)

    def drift(self, shop: Shop, table: str) -> list[str]:
        return catalogue.drift(self._connection, shop, table)

    def log(self, shop: Shop, table: str) -> MariadbTable:
        """Names and SQL for a table, by the columns that it has."""
        kinds = self.kinds(shop, table)
        return MariadbTable(shop, table, kinds, server.is_mariadb(self._connection))

    def kinds(self, shop: Shop, table: str) -> dict[str, tuple[Any, ...]]:
        """The types of a table's columns."""
        rows = self.rows(_KINDS, (shop.source.schema_name, table))
        return {str(name): tuple(kind) for name, *kind in rows}

    def selected(self, log: LogTable) -> str:
        """The stored columns; a FLOAT whole."""
        return selected(log.declared, self._columns_of(log))

    def arrays(self, log: LogTable, rows: list[tuple[Any, ...]], key: bytes) -> list[Any]:
        columns = self._columns_of(log)
        return arrays(
            log.declared, rows, key,
            lambda column, values, kind: array(values, kind, columns[column]),
        )  # fmt: skip

    def fault(self, shop: Shop, table: str) -> str:
        if unfit := self.unfit(shop, table):
            return unfit
        if not {
            f"{prefix(shop)}{name}" for name in (*HOUSEKEEPING, f"changes_{table}")
        } <= self.tables(shop):
            return missing(table)
        known = self.rows(
            f"SELECT identity, definition FROM {housekeeping(shop, 'captures')} "
            "WHERE table_name = %s",
            (table,),
        )
        if not known:
            return missing(table)
        failures = self.rows(
            f"SELECT message FROM {housekeeping(shop, 'faults')} WHERE table_name = %s LIMIT 1",
            (table,),
        )
        if failures:
            return (
                f"capture of {table} failed ({failures[0][0]}) and misses changes since; mend the "
                f"table or its declaration, then {INSTALL}, which catches up"
            )
        identity, definition = known[0]
        if definition != self.log(shop, table).definition or self._triggers(shop, table) != len(
            EVENTS
        ):
            return mismatch(table)
        if identity != self.identity(shop, table):
            return (
                f"{table} was truncated, rebuilt or replaced, which no trigger sees; {INSTALL}, "
                "which catches up; use DELETE instead of TRUNCATE"
            )
        return ""

    def tables(self, shop: Shop) -> set[str]:
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
        return {str(name) for (name,) in self.rows(query, (shop.source.schema_name,))}

    def unfit(self, shop: Shop, table: str) -> str:
        """Why triggers cannot see every change of a table; empty where they can."""
        cascades = self.rows(_CASCADES, (shop.source.schema_name, table))
        if cascades:
            name, parent = cascades[0]
            return (
                f"{table}: the foreign key {name} changes its rows when {parent} changes, and no "
                "trigger sees that; declare the key without CASCADE and SET NULL and let the "
                "shop change the rows by statements of their own, or use `capture: binlog`"
            )
        (step,) = self.rows("SELECT @@GLOBAL.auto_increment_increment")[0]
        if step != 1:
            return (
                f"the server has auto_increment_increment = {step}, so that several servers "
                "write and their changes have no one order; `capture: trigger` needs 1, or use "
                "`capture: binlog`"
            )
        return ""

    def identity(self, shop: Shop, table: str) -> int:
        """A number that changes when a table is truncated, rebuilt or replaced by another."""
        known = "innodb_sys_tables" if server.is_mariadb(self._connection) else "innodb_tables"
        name = f"{shop.source.schema_name}/{table}"
        ((number,),) = self.rows(
            f"SELECT coalesce(sum(table_id), 0) FROM information_schema.{known} "
            "WHERE name = %s OR left(name, %s) = %s",
            (name, len(name) + 1, f"{name}#"),
        )
        return int(number)

    def settled(self, shop: Shop) -> bool:
        """Whether every gate was seen free."""
        shut = list(range(GATES))
        gates = housekeeping(shop, "gates")
        for _ in range(_TRIES):
            shut = [slot for slot in shut if not self._free(gates, slot)]
            if not shut:
                return True
            time.sleep(_PAUSE_S)
        return False

    def held(self, log: LogTable, due: str, before: int) -> list[int]:
        """Transactions that began before a time and went on after it."""
        if log.declared.commit_time is not None:
            return []
        rows = self.rows(
            f"SELECT DISTINCT d.{TRANSACTION} FROM ({due}) AS d "
            f"JOIN {housekeeping(log.shop, 'spans')} AS s "
            f"ON s.tx = d.{TRANSACTION} AND s.at >= {before:d} ORDER BY 1"
        )
        return [int(number) for (number,) in rows]

    def begin(self) -> None:
        """One consistent snapshot."""
        self.rows("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def forget(self, shop: Shop, before: datetime) -> None:
        """The spans before a time."""
        self.rows(f"DELETE FROM {housekeeping(shop, 'spans')} WHERE at < {microseconds(before):d}")

    def _free(self, gates: str, slot: int) -> bool:
        try:
            return bool(
                self.rows(f"SELECT slot FROM {gates} WHERE slot = {slot} FOR UPDATE NOWAIT")
            )
        except pymysql.MySQLError as error:
            if error.args[0] in _NEEDS_LOCK:
                return False
            raise

    def _triggers(self, shop: Shop, table: str) -> int:
        names = LogNames(shop, table)
        ((count,),) = self.rows(
            "SELECT count(*) FROM information_schema.triggers WHERE trigger_schema = %s "
            "AND event_object_table = %s AND trigger_name IN (%s, %s, %s)",
            (shop.source.schema_name, table, *map(names.trigger, EVENTS)),
        )
        return int(count)

    def _columns_of(self, log: LogTable) -> Any:
        if log.table not in self._columns:
            self._columns[log.table] = catalogue.columns_of(
                self._connection, log.shop.source.schema_name, log.changes.strip("`")
            )
        return self._columns[log.table]


@contextmanager
def opened(url: str) -> Iterator[MariadbSession]:
    """A session on the shop's database.

    Raises:
        SettingsError, SourceUnavailable, CaptureMissing: see `server.connect`.
    """
    with server.connect(url, "trigger") as connection:
        yield MariadbSession(connection)


@contextmanager
def writing(url: str) -> Iterator[MariadbSession]:
    """The same; what it deletes locks the deleted rows and no gap where others insert."""
    with opened(url) as session:
        session.rows("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        yield session
