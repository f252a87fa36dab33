"""Trigger capture in MariaDB and MySQL: what is installed, and how it is read.

InnoDB has no function that names a transaction or tells which are open. Two things stand in:

- Each writer holds one of 16 rows of `gates` locked in share mode until its transaction ends,
  and takes it before it draws a number. A gate that can be locked for an instant, without waiting,
  has no open writer; once each was seen free, the numbers missing before are dead.
- A session's transaction is told from its next by the last GTID that the session committed
  (MySQL: by the transaction's event). Its later statements are noted in `spans`, so that one
  which goes on beyond an interval's end waits for the next interval, whole.

Should a change not be capturable (say, a declared column was dropped), the shop's write goes on and
the failure is noted in `faults`: extraction then stops until capture is installed again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pymysql

from pipelines.extract.databases.mysql import catalogue, values
from pipelines.extract.databases.mysql import connection as server
from pipelines.extract.trigger.numbered.source import (
    AGAIN,
    fetched,
    missing,
    require_declared,
    require_order,
)
from pipelines.extract.trigger.numbered.sql import (
    LogNames,
    LogTable,
    housekeeping,
    microseconds,
    prefix,
    quoted,
)
from pipelines.shared.columns import (
    CHANGE_COLUMNS,
    COMMITTED_AT,
    DELETE,
    INSERT,
    OP,
    POSITION,
    TRANSACTION,
    UPDATE,
)
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing

LOCK_TIMEOUT_S = 30
"""How long installing waits for a busy table: behind it, the shop's own writers queue."""
EVENTS = ("insert", "update", "delete")
GATES = 16
_TRIES = 20
_PAUSE_S = 0.005
_NEEDS_LOCK = {1205, 3572}
_HOUSEKEEPING = {
    "captures": "table_name varchar(64) PRIMARY KEY, log char(36) NOT NULL, "
    "identity bigint NOT NULL, definition longtext NOT NULL",
    "faults": "id bigint AUTO_INCREMENT PRIMARY KEY, table_name varchar(64) NOT NULL, "
    "message text, noted_at datetime(6) NOT NULL, KEY (table_name)",
    "gates": "slot int PRIMARY KEY",
    "spans": "id bigint AUTO_INCREMENT PRIMARY KEY, tx bigint NOT NULL, at bigint NOT NULL, "
    "KEY (at), KEY (tx, at)",
}
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
_NAMED = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"}


@dataclass(frozen=True)
class MariadbTable(LogTable):
    """Names and SQL for one table, given the types that its columns have."""

    kinds: Mapping[str, tuple[Any, ...]]
    """Column → type in full, character set, collation, type."""
    mariadb: bool
    """MariaDB rather than MySQL."""

    def same(self, name: str, left: str, right: str) -> str:
        """Texts are compared by their bytes: a collation takes `a` for `A`."""
        column = quoted(name)
        if self.kinds[name][3] in _TEXTS:
            return f"BINARY {left}.{column} <=> BINARY {right}.{column}"
        return f"{left}.{column} <=> {right}.{column}"

    def moment(self, value: str) -> str:
        """DATETIME has no zone and is read as UTC; a TIMESTAMP is read in the session's zone."""
        name = self.declared.commit_time
        if name is not None and self.kinds[name][3] == "timestamp":
            return f"CAST(UNIX_TIMESTAMP({value}) * 1000000 AS SIGNED)"
        return f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {value})"

    def create_changes(self) -> str:
        """Make the table of changes, its columns typed as the table's own."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self.changes} ("
            f"{POSITION} bigint AUTO_INCREMENT PRIMARY KEY, {TRANSACTION} bigint NOT NULL, "
            f"{OP} varchar(6) CHARACTER SET ascii NOT NULL, {COMMITTED_AT} bigint NOT NULL, "
            f"{', '.join(map(self._column, self.stored))}, "
            f"KEY ({COMMITTED_AT}), KEY ({TRANSACTION}, {COMMITTED_AT})) ENGINE = InnoDB"
        )

    def fit_columns(self, found: Mapping[str, tuple[Any, ...]]) -> str:
        """Give the table of changes the columns that are stored now, and no other."""
        steps = [
            f"DROP COLUMN {quoted(name)}"
            for name in found
            if name not in {*CHANGE_COLUMNS, *self.stored}
        ]
        for name in self.stored:
            if found.get(name) != self.kinds[name]:
                what = "MODIFY" if name in found else "ADD"
                steps.append(f"{what} COLUMN {self._column(name)}")
        return f"ALTER TABLE {self.changes} {', '.join(steps)}" if steps else ""

    def create_triggers(self) -> list[str]:
        """Make the three triggers."""
        # MariaDB fires for a row that UPDATE IGNORE left as it was, too.
        left = f"EXISTS (SELECT 1 FROM {self.source} AS s WHERE {self.near_key('s', 'OLD')}"
        updated = (
            f"IF {self.same_key('OLD', 'NEW')} THEN IF NOT ({self.same_row('OLD', 'NEW')}) "
            f"AND NOT {left} AND {self.same_row('s', 'OLD')}) THEN "
            f"{self._write(UPDATE, 'NEW')} END IF; "
            f"ELSEIF NOT {left}) THEN "
            f"{self._write(DELETE, 'OLD')} {self._write(INSERT, 'NEW')} END IF;"
        )
        bodies = {
            "insert": self._write(INSERT, "NEW"),
            "update": updated,
            "delete": self._write(DELETE, "OLD"),
        }
        return [
            f"CREATE TRIGGER {quoted(self.trigger(event))} AFTER {event} ON {self.source} "
            f"FOR EACH ROW BEGIN {self._opening()} {body} END"
            for event, body in bodies.items()
        ]

    def _column(self, name: str) -> str:
        written, charset, collation, _ = self.kinds[name]
        encoded = f" CHARACTER SET {charset} COLLATE {collation}" if charset else ""
        return f"{quoted(name)} {written}{encoded} NULL"

    def _opening(self) -> str:
        """What each trigger begins with: the fault's handler, the gate, the transaction."""
        tx, of, at = (f"@{prefix(self.shop)}{name}" for name in ("tx", "of", "at"))
        told = housekeeping(self.shop, "faults")
        event = (
            "@@in_transaction, @@last_gtid, "
            "IF(@@in_transaction AND @@log_bin AND @@sql_log_bin, '', UTC_TIMESTAMP(6))"
            if self.mariadb
            else "(SELECT e.event_id FROM performance_schema.events_transactions_current AS e "
            "WHERE e.thread_id = PS_CURRENT_THREAD_ID())"
        )
        return (
            "DECLARE gate int; DECLARE told text; DECLARE token varchar(100); "
            "DECLARE clock bigint DEFAULT "
            "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)); "
            "DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN "
            "DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN END; "
            "GET DIAGNOSTICS CONDITION 1 told = MESSAGE_TEXT; "
            f"INSERT INTO {told} (table_name, message, noted_at) "
            f"VALUES ('{self.table}', told, UTC_TIMESTAMP(6)); END; "
            f"SELECT slot INTO gate FROM {housekeeping(self.shop, 'gates')} "
            f"WHERE slot = CONNECTION_ID() % {GATES} LOCK IN SHARE MODE; "
            f"SET token = CONCAT_WS(' ', {event}); "
            f"IF NOT ({of} <=> token) THEN "
            f"SET {of} = token, {tx} = UUID_SHORT() & 9223372036854775807, {at} = clock; "
            f"ELSEIF NOT ({at} <=> clock) THEN "
            f"INSERT INTO {housekeeping(self.shop, 'spans')} (tx, at) VALUES ({tx}, clock); "
            f"SET {at} = clock; END IF;"
        )

    def _write(self, op: str, row: str) -> str:
        return (
            f"INSERT INTO {self.changes} ({OP}, {COMMITTED_AT}, {TRANSACTION}, {self.names}) "
            f"VALUES ('{op}', {self.stamp(row, 'clock', op)}, @{prefix(self.shop)}tx, "
            f"{self.values(row)});"
        )


class MariadbSession:
    """See `trigger_log.Session`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._columns: dict[str, Any] = {}

    def rows(self, statement: str, bound: Any = ()) -> list[tuple[Any, ...]]:
        """The rows of a small answer."""
        return server.rows(self._connection, statement, bound or None)

    def stream(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        """Rows as the server sends them, few at a time where they are large."""
        # Never closed: that would read what is left, also from a connection that was cut.
        cursor = self._connection.cursor(pymysql.cursors.SSCursor)
        cursor.execute(statement)
        yield from fetched(cursor)

    def now(self, shop: Shop) -> datetime:
        """The server's time."""
        return server.now(self._connection)

    def drift(self, shop: Shop, table: str) -> list[str]:
        """Every way in which a table departs from its declaration."""
        return catalogue.drift(self._connection, shop, table)

    def log(self, shop: Shop, table: str) -> MariadbTable:
        """Names and SQL for a table, by the columns that it has."""
        kinds = self.kinds(shop, table)
        return MariadbTable(shop, table, kinds, server.is_mariadb(self._connection))

    def kinds(self, shop: Shop, table: str) -> dict[str, tuple[Any, ...]]:
        """The types of a table's columns."""
        found = self.rows(_KINDS, (shop.source.schema_name, table))
        return {str(name): tuple(kind) for name, *kind in found}

    def selected(self, log: LogTable) -> str:
        """The stored columns; a FLOAT whole."""
        return values.selected(log.declared, self._found(log))

    def arrays(self, log: LogTable, rows: list[tuple[Any, ...]], key: bytes) -> list[Any]:
        """Stored columns as Arrow arrays."""
        return values.arrays(log.table, log.declared, self._found(log), rows, key)

    def fault(self, shop: Shop, table: str) -> str:
        """Why a table's changes are not, or not all, captured; empty where they are."""
        if unfit := self.unfit(shop, table):
            return unfit
        names = {str(name) for (name,) in self.rows(_NAMED, (shop.source.schema_name,))}
        if not {f"{prefix(shop)}{name}" for name in (*_HOUSEKEEPING, f"changes_{table}")} <= names:
            return missing(table)
        known = self.rows(
            f"SELECT identity, definition FROM {housekeeping(shop, 'captures')} "
            "WHERE table_name = %s",
            (table,),
        )
        if not known:
            return missing(table)
        told = self.rows(
            f"SELECT message FROM {housekeeping(shop, 'faults')} WHERE table_name = %s LIMIT 1",
            (table,),
        )
        if told:
            return (
                f"capture of {table} failed ({told[0][0]}) and misses changes since; mend the "
                f"table or its declaration, then {AGAIN}, which catches up"
            )
        identity, definition = known[0]
        if definition != self.definition(shop, table) or self._triggers(shop, table) != len(EVENTS):
            return (
                f"capture of {table} was switched off, removed or does not match the table and "
                f"its declaration any more; {AGAIN}, which catches up"
            )
        if identity != self.identity(shop, table):
            return (
                f"{table} was truncated, rebuilt or replaced, which no trigger sees; {AGAIN}, "
                "which catches up; use DELETE instead of TRUNCATE"
            )
        return ""

    def unfit(self, shop: Shop, table: str) -> str:
        """Why triggers cannot see every change of a table; empty where they can."""
        found = self.rows(_CASCADES, (shop.source.schema_name, table))
        if found:
            name, parent = found[0]
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
        """A number that changes when a table is truncated, rebuilt or made anew."""
        known = "innodb_sys_tables" if server.is_mariadb(self._connection) else "innodb_tables"
        name = f"{shop.source.schema_name}/{table}"
        ((number,),) = self.rows(
            f"SELECT coalesce(sum(table_id), 0) FROM information_schema.{known} "
            "WHERE name = %s OR left(name, %s) = %s",
            (name, len(name) + 1, f"{name}#"),
        )
        return int(number)

    def definition(self, shop: Shop, table: str) -> str:
        """What was installed, in so many words."""
        log = self.log(shop, table)
        return " ".join([log.create_changes(), *log.create_triggers()])

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
        found = self.rows(
            f"SELECT DISTINCT d.{TRANSACTION} FROM ({due}) AS d "
            f"JOIN {housekeeping(log.shop, 'spans')} AS s "
            f"ON s.tx = d.{TRANSACTION} AND s.at >= {before:d} ORDER BY 1"
        )
        return [int(number) for (number,) in found]

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

    def _found(self, log: LogTable) -> Any:
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


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Capture the changes of every declared table, beginning with the rows it holds.

    While the rows are taken, the tables can be read and not written to: no row is lost or doubled
    between them and the first change. A table that is captured as declared is left alone; one
    whose capture was damaged catches up.

    Args:
        url: SQLAlchemy URL of the shop's database.
        shop: its declaration.
        at: commit time of the rows found; default: the server's clock.

    Returns:
        The tables newly or again captured.

    Raises:
        SchemaDrift: a table is not as declared; nothing was installed.
        CaptureMissing: triggers cannot see every change of a table, `at` lies before changes
            already captured, or a right is missing.
        SourceUnavailable: the server does not answer, or a table stayed busy.
    """
    with opened(url) as session:
        require_declared(session, shop)
        if unfit := [why for table in sorted(shop.tables) if (why := session.unfit(shop, table))]:
            raise CaptureMissing("; ".join(unfit))
        session.rows(f"USE {quoted(shop.source.schema_name)}")
        session.rows(f"SET lock_wait_timeout = {LOCK_TIMEOUT_S}, sql_mode = 'STRICT_ALL_TABLES'")
        session.rows(f"DO GET_LOCK('{prefix(shop)}', {LOCK_TIMEOUT_S})")
        for name, columns in _HOUSEKEEPING.items():
            session.rows(
                f"CREATE TABLE IF NOT EXISTS {housekeeping(shop, name)} ({columns}) "
                "ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4"
            )
        slots = ", ".join(f"({slot})" for slot in range(GATES))
        session.rows(f"INSERT IGNORE INTO {housekeeping(shop, 'gates')} VALUES {slots}")
        captured = _captured(session, shop)
        for table in captured - set(shop.tables):
            _forget(session, shop, table)
        due = [
            session.log(shop, table) for table in sorted(shop.tables) if session.fault(shop, table)
        ]
        for log in due:
            _prepare(session, log, at if log.table in captured else None)
        if due:
            _fill(session, due, captured, at)
    return [log.table for log in due]


def remove(url: str, shop: Shop) -> None:
    """Take every trigger and captured change out of the shop's database again.

    Raises:
        SourceUnavailable: the server does not answer, or a table stayed busy.
    """
    with opened(url) as session:
        session.rows(f"USE {quoted(shop.source.schema_name)}")
        session.rows(f"SET lock_wait_timeout = {LOCK_TIMEOUT_S}")
        for table in _captured(session, shop) | set(shop.tables):
            _drop(session, LogNames(shop, table))
        for name in _HOUSEKEEPING:
            session.rows(f"DROP TABLE IF EXISTS {housekeeping(shop, name)}")


def _captured(session: MariadbSession, shop: Shop) -> set[str]:
    names = {str(name) for (name,) in session.rows(_NAMED, (shop.source.schema_name,))}
    if f"{prefix(shop)}captures" not in names:
        return set()
    found = session.rows(f"SELECT table_name FROM {housekeeping(shop, 'captures')}")
    return {str(name) for (name,) in found}


def _forget(session: MariadbSession, shop: Shop, table: str) -> None:
    """Remove what was captured of a table that is no longer declared."""
    _drop(session, LogNames(shop, table))
    for kept in ("captures", "faults"):
        session.rows(f"DELETE FROM {housekeeping(shop, kept)} WHERE table_name = %s", (table,))


def _drop(session: MariadbSession, names: LogNames) -> None:
    for event in EVENTS:
        session.rows(f"DROP TRIGGER IF EXISTS {quoted(names.trigger(event))}")
    session.rows(f"DROP TABLE IF EXISTS {names.changes}")


def _prepare(session: MariadbSession, log: MariadbTable, at: datetime | None) -> None:
    """Table of changes and triggers; DDL cannot be rolled back, but nobody reads them yet."""
    session.rows(log.create_changes())
    found = session.kinds(log.shop, log.changes.strip("`"))
    if step := log.fit_columns(found):
        session.rows(step)
    require_order(session, log, at)
    for event, statement in zip(EVENTS, log.create_triggers(), strict=True):
        session.rows(f"DROP TRIGGER IF EXISTS {quoted(log.trigger(event))}")
        session.rows(statement)


def _fill(
    session: MariadbSession, due: list[MariadbTable], captured: set[str], at: datetime | None
) -> None:
    """Write the rows found, or what was missed, while nobody else writes."""
    shop = due[0].shop
    clock = microseconds(at or session.now(shop))
    kept = [housekeeping(shop, name) for name in ("captures", "faults")]
    locks = [f"{name} WRITE" for name in kept]
    for log in due:
        row, *twice = log.aliases
        locks += [f"{log.source} AS {row} READ", f"{log.changes} WRITE"]
        locks += [f"{log.changes} AS {alias} READ" for alias in twice]
    stamps = [(log, session.identity(shop, log.table)) for log in due]
    session.rows("SET autocommit = 0")
    session.rows(f"LOCK TABLES {', '.join(locks)}")
    for log, identity in stamps:
        if log.table not in captured:
            # Triggers wrote these before the lock; the rows found hold them already.
            session.rows(f"DELETE FROM {log.changes}")
        session.rows("SET @freshrank_tx = UUID_SHORT() & 9223372036854775807")
        for statement in log.catch_up(clock, "@freshrank_tx"):
            session.rows(statement)
        definition = " ".join([log.create_changes(), *log.create_triggers()])
        session.rows(f"DELETE FROM {kept[1]} WHERE table_name = %s", (log.table,))
        session.rows(
            f"INSERT INTO {kept[0]} (table_name, log, identity, definition) "
            "VALUES (%s, %s, %s, %s) ON DUPLICATE KEY UPDATE identity = %s, definition = %s",
            (log.table, str(uuid.uuid4()), identity, definition, identity, definition),
        )
    session.rows("COMMIT")
    session.rows("UNLOCK TABLES")
