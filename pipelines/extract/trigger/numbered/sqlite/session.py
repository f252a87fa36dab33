"""Trigger capture in SQLite: what is installed, and how it is read.

SQLite has one writer at a time: the order of the numbers is the order of the commits, and no number
is missing. REPLACE removes rows without their delete triggers, unless the writer has switched on
`recursive_triggers`. So before an insert or update, the rows that it would push out are noted in
`freshrank_<shop>_replaced_<table>`; after it, those that are gone are deletes.

The log keeps values as they are, without a type of its own, so that writing a change does not fail
where the shop's own write succeeded.
"""

from __future__ import annotations

import difflib
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import sqlalchemy as sa

from pipelines.extract.cursor.snapshot import in_words
from pipelines.extract.pseudonyms import pseudonymise
from pipelines.extract.schema import SourceColumn, compare
from pipelines.extract.trigger.numbered.source import (
    AGAIN,
    fetched,
    missing,
    require_declared,
    require_order,
)
from pipelines.extract.trigger.numbered.sql import (
    EPOCH,
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
from pipelines.shared.errors import CaptureMissing, SchemaDrift, SettingsError, SourceUnavailable

WAIT_S = 30.0
"""How long a writer may hold the file before installing gives up."""
OLDEST = (3, 25)
"""SQLite 3.25 brought window functions."""
_HOUSEKEEPING = {
    "captures": "table_name PRIMARY KEY, log NOT NULL, definition NOT NULL",
    "clock": "at INTEGER NOT NULL",
}
_TRIGGERS = {
    "before_insert": "BEFORE INSERT",
    "insert": "AFTER INSERT",
    "before_update": "BEFORE UPDATE",
    "update": "AFTER UPDATE",
    "delete": "AFTER DELETE",
}
_NOW = (
    "CAST(strftime('%s', 'now') AS INTEGER) * 1000000 "
    "+ CAST(substr(strftime('%f', 'now'), 4, 3) AS INTEGER) * 1000"
)


@dataclass(frozen=True)
class SqliteTable(LogTable):
    """Names and SQL for one table, given its unique indexes."""

    uniques: tuple[tuple[str, ...], ...]
    """Columns of each."""

    def same(self, name: str, left: str, right: str) -> str:
        """Letter for letter, whatever the column's collation."""
        return f"{left}.{quoted(name)} IS {right}.{quoted(name)} COLLATE BINARY"

    def moment(self, value: str) -> str:
        """A time is a text in UTC with or without a fraction; one with a zone to a thousandth."""
        fraction = f"CASE WHEN substr({value}, 20, 1) = '.' THEN substr({value}, 21) ELSE '' END"
        return (
            f"CASE WHEN substr({value}, 20) GLOB '*[^.0-9]*' "
            f"THEN CAST(round((julianday({value}) - 2440587.5) * 86400000) AS INTEGER) * 1000 "
            f"ELSE CAST(strftime('%s', substr({value}, 1, 19)) AS INTEGER) * 1000000 "
            f"+ CAST(substr({fraction} || '000000', 1, 6) AS INTEGER) END"
        )

    @property
    def replaced(self) -> str:
        """Rows that the statement at work may push out."""
        return quoted(f"{prefix(self.shop)}replaced_{self.table}")

    @property
    def clock(self) -> str:
        """The commit time of a change without one of its own, in microseconds."""
        return f"coalesce((SELECT max(at) FROM {housekeeping(self.shop, 'clock')}), {_NOW})"

    def create_changes(self) -> list[str]:
        """Make the table of changes, with the index that bounds what an extraction reads."""
        index = quoted(f"{prefix(self.shop)}changes_{self.table}_at")
        return [
            f"CREATE TABLE IF NOT EXISTS {self.changes} ("
            f"{POSITION} INTEGER PRIMARY KEY AUTOINCREMENT, {TRANSACTION} INTEGER NOT NULL, "
            f"{OP} TEXT NOT NULL, {COMMITTED_AT} INTEGER NOT NULL, {self.names})",
            f"CREATE INDEX IF NOT EXISTS {index} ON {self.changes} ({COMMITTED_AT})",
        ]

    def create_triggers(self) -> list[str]:
        """Make the triggers, and the table of rows that a REPLACE may push out."""
        anew = f"DELETE FROM {self.replaced};"
        taken = (
            " OR ".join(
                "(" + " AND ".join(f"r.{quoted(n)} = NEW.{quoted(n)}" for n in names) + ")"
                for names in self.uniques
            )
            or "0"
        )
        note = (
            f"INSERT INTO {self.replaced} SELECT {self.values('r')} FROM {self.source} AS r "
            f"WHERE ({taken})"
        )
        gone = self._write(
            DELETE, "p",
            f"FROM {self.replaced} AS p WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self.source} AS r WHERE {self.near_key('r', 'p')})",
        )  # fmt: skip
        before = f"FROM {self.replaced} AS p WHERE {self.same_key('p', 'NEW')}"

        def came(where: str) -> str:
            changed = f"NOT ({self.same_row('p', 'NEW')})"
            return self._write(
                INSERT, "NEW", f"WHERE {where} AND NOT EXISTS (SELECT 1 {before})"
            ) + self._write(
                UPDATE, "NEW", f"WHERE {where} AND EXISTS (SELECT 1 {before} AND {changed})"
            )

        same = self.same_key("OLD", "NEW")
        updated = (
            self._write(UPDATE, "NEW", f"WHERE {same} AND NOT ({self.same_row('OLD', 'NEW')})")
            + self._write(DELETE, "OLD", f"WHERE NOT ({same})")
            + came(f"NOT ({same})")
        )
        bodies = {
            "before_insert": f"{anew} {note};",
            "insert": f"{gone} {came('1')} {anew}",
            "before_update": f"{anew} {note} AND NOT ({self.same_key('r', 'OLD')});",
            "update": f"{gone} {updated} {anew}",
            "delete": self._write(DELETE, "OLD", "")
            + f"DELETE FROM {self.replaced} WHERE {self.same_key(self.replaced, 'OLD')};",
        }
        made = [
            f"CREATE TRIGGER {quoted(self.trigger(name))} {_TRIGGERS[name]} ON {self.source} "
            f"FOR EACH ROW BEGIN {body} END"
            for name, body in bodies.items()
        ]
        return [f"CREATE TABLE {self.replaced} ({self.names})", *made]

    def drop(self) -> list[str]:
        """Unmake the triggers and their table."""
        names = [quoted(self.trigger(name)) for name in _TRIGGERS]
        return [
            *(f"DROP TRIGGER IF EXISTS {name}" for name in names),
            f"DROP TABLE IF EXISTS {self.replaced}",
        ]

    def _write(self, op: str, row: str, where: str) -> str:
        stamp = self.stamp(row, self.clock, op)
        return (
            f"INSERT INTO {self.changes} ({OP}, {COMMITTED_AT}, {TRANSACTION}, {self.names}) "
            f"SELECT '{op}', {stamp}, {self.clock}, {self.values(row)} {where}; "
        )


class SqliteSession:
    """See `trigger_log.Session`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, bound: Any = ()) -> list[tuple[Any, ...]]:
        """The rows of a small answer."""
        return self._connection.execute(statement, bound).fetchall()

    def stream(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        """Rows as they are read, few at a time where they are large."""
        yield from fetched(self._connection.execute(statement))

    def now(self, shop: Shop) -> datetime:
        """The machine's time, or the one that a replay has set in `freshrank_<shop>_clock`."""
        clock = _NOW
        if self._tables() & {f"{prefix(shop)}clock"}:
            clock = f"coalesce((SELECT max(at) FROM {housekeeping(shop, 'clock')}), {_NOW})"
        ((now,),) = self.rows(f"SELECT {clock}")
        return EPOCH + timedelta(microseconds=now)

    def drift(self, shop: Shop, table: str) -> list[str]:
        """Every way in which a table departs from its declaration."""
        if not (found := self._columns(table)):
            near = difflib.get_close_matches(table, self._tables(), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            return [
                f"{table} is declared, but the database has no such table; {hint}"
                f"mend `tables` in shops/{shop.shop}/shop.yaml"
            ]
        return compare(shop, table, found)

    def log(self, shop: Shop, table: str) -> SqliteTable:
        """Names and SQL for a table, by the unique indexes that it has."""
        info = self.rows("SELECT name, pk FROM pragma_table_info(?) ORDER BY pk", (table,))
        found = {tuple(name for name, pk in info if pk), tuple(shop.tables[table].key)}
        unique = 'SELECT name FROM pragma_index_list(?) WHERE "unique"'
        for (index,) in self.rows(unique, (table,)):
            named = self.rows("SELECT name FROM pragma_index_info(?)", (index,))
            found.add(tuple(name for (name,) in named))
        return SqliteTable(shop, table, tuple(sorted(found - {()}, key=str)))

    def selected(self, log: LogTable) -> str:
        """The stored columns, as they are."""
        return log.values("c")

    def arrays(self, log: LogTable, rows: list[tuple[Any, ...]], key: bytes) -> list[Any]:
        """Stored columns as Arrow arrays."""
        made = []
        columns = zip(*rows, strict=True)
        for (name, kind), values in zip(
            log.declared.stored_columns().items(), columns, strict=True
        ):
            try:
                array = _array(values, kind)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError) as error:
                raise SchemaDrift(
                    f"{log.table}.{name} holds a value that does not fit its declared type "
                    f"({error}); declare a wider type in `tables.{log.table}.columns.{name}`"
                ) from error
            if log.declared.personal.get(name) == "pseudonymise":
                array = pseudonymise(array, key)
            made.append(array)
        return made

    def fault(self, shop: Shop, table: str) -> str:
        """Why a table's changes are not, or not all, captured; empty where they are."""
        if not self._tables() >= {f"{prefix(shop)}captures"}:
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
        names = [f"{prefix(shop)}replaced_{table}", *map(log.trigger, _TRIGGERS)]
        holes = ", ".join("?" * len(names))
        there = self.rows(f"SELECT sql FROM sqlite_master WHERE name IN ({holes})", names)
        whole = sorted(log.create_triggers()) == sorted(str(sql) for (sql,) in there)
        if known[0][0] != definition(log) or not whole:
            return (
                f"capture of {table} was switched off, removed or does not match the table and "
                f"its declaration any more; {AGAIN}, which catches up"
            )
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

    def _tables(self) -> set[str]:
        return {name for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type='table'")}

    def _columns(self, table: str) -> dict[str, SourceColumn]:
        if table not in self._tables():
            return {}
        engine = sa.create_engine(
            "sqlite://", creator=lambda: self._connection, poolclass=sa.StaticPool,
            pool_reset_on_return=None,
        )  # fmt: skip
        return {
            each["name"]: in_words(each["type"]) for each in sa.inspect(engine).get_columns(table)
        }


@contextmanager
def opened(url: str, *, write: bool = False) -> Iterator[SqliteSession]:
    """A session on the shop's file, for reading only unless told.

    Raises:
        SettingsError: the URL names no file.
        SourceUnavailable: the file cannot be read, or stayed locked.
        CaptureMissing: SQLite is too old, or the file may not be written.
    """
    path = sa.make_url(url).database
    if path in (None, "", ":memory:"):
        raise SettingsError(
            f"{url} names no file; write the connection as sqlite:////path/to/shop.db"
        )
    if sqlite3.sqlite_version_info < OLDEST:
        raise CaptureMissing(
            f"SQLite is {sqlite3.sqlite_version}; `capture: trigger` needs 3.25 or newer"
        )
    mode = "rw" if write else "ro"
    try:
        # Delta Lake reads the rows in a thread of its own, one at a time.
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        try:
            yield SqliteSession(connection)
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "readonly" in str(error):
            raise CaptureMissing(
                f"{path} may not be written ({error}); install capture as the file's owner"
            ) from error
        raise SourceUnavailable(
            f"the shop's database {path} does not answer ({error}); mend the connection, or wait "
            "until its writer is done, then run again"
        ) from error


@contextmanager
def writing(url: str) -> Iterator[SqliteSession]:
    """The same, for writing too."""
    with opened(url, write=True) as session:
        yield session


def definition(log: SqliteTable) -> str:
    """What is installed for a table, in so many words."""
    return " ".join([*log.create_changes(), *log.create_triggers()])


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Capture the changes of every declared table, beginning with the rows it holds.

    One transaction, so that nobody writes meanwhile and nothing half-made stays. A table that is
    captured as declared is left alone; one whose capture was damaged catches up.

    Args:
        url: SQLAlchemy URL of the shop's database.
        shop: its declaration.
        at: commit time of the rows found; default: the shop's clock.

    Returns:
        The tables newly or again captured.

    Raises:
        SchemaDrift: a table is not as declared; nothing was installed.
        CaptureMissing: triggers cannot see every change of a table, `at` lies before changes
            already captured, or the file may not be written.
        SourceUnavailable: the file cannot be read, or stayed locked.
    """
    with opened(url, write=True) as session:
        require_declared(session, shop)
        session.rows("BEGIN IMMEDIATE")
        for name, columns in _HOUSEKEEPING.items():
            session.rows(f"CREATE TABLE IF NOT EXISTS {housekeeping(shop, name)} ({columns})")
        for table in _captured(session, shop) - set(shop.tables):
            _drop(session, shop, table)
        due = [table for table in sorted(shop.tables) if session.fault(shop, table)]
        clock = at or session.now(shop)
        for table in due:
            _capture(session, session.log(shop, table), clock, at)
        session.rows("COMMIT")
    return due


def remove(url: str, shop: Shop) -> None:
    """Take every trigger and captured change out of the shop's database again.

    Raises:
        SourceUnavailable: the file cannot be read, or stayed locked.
    """
    with opened(url, write=True) as session:
        session.rows("BEGIN IMMEDIATE")
        for table in _captured(session, shop) | set(shop.tables):
            _drop(session, shop, table)
        for name in _HOUSEKEEPING:
            session.rows(f"DROP TABLE IF EXISTS {housekeeping(shop, name)}")
        session.rows("COMMIT")


def _capture(
    session: SqliteSession, log: SqliteTable, clock: datetime, at: datetime | None
) -> None:
    for statement in [*log.drop(), *log.create_changes()]:
        session.rows(statement)
    _fit_columns(session, log)
    require_order(session, log, at)
    for statement in log.create_triggers():
        session.rows(statement)
    moment = microseconds(clock)
    for statement in log.catch_up(moment, str(moment)):
        session.rows(statement)
    session.rows(
        f"INSERT INTO {housekeeping(log.shop, 'captures')} VALUES (?, ?, ?) "
        "ON CONFLICT (table_name) DO UPDATE SET definition = excluded.definition",
        (log.table, str(uuid.uuid4()), definition(log)),
    )
    if fault := session.fault(log.shop, log.table):
        raise CaptureMissing(fault)


def _fit_columns(session: SqliteSession, log: SqliteTable) -> None:
    """Give the table of changes the columns that are stored now; SQLite rewrites it for that."""
    changes = log.changes.strip("`")
    found = [name for (name,) in session.rows("SELECT name FROM pragma_table_info(?)", (changes,))]
    if found[len(CHANGE_COLUMNS) :] == log.stored:
        return
    kept = ", ".join(quoted(n) for n in found if n in {*CHANGE_COLUMNS, *log.stored})
    old = quoted(f"{changes}_old")
    session.rows(f"ALTER TABLE {log.changes} RENAME TO {old}")
    session.rows(f"DROP INDEX {quoted(f'{changes}_at')}")
    for statement in log.create_changes():
        session.rows(statement)
    session.rows(f"INSERT INTO {log.changes} ({kept}) SELECT {kept} FROM {old}")
    session.rows(f"DROP TABLE {old}")


def _captured(session: SqliteSession, shop: Shop) -> set[str]:
    if not session.rows("SELECT 1 FROM sqlite_master WHERE name = ?", (f"{prefix(shop)}captures",)):
        return set()
    found = session.rows(f"SELECT table_name FROM {housekeeping(shop, 'captures')}")
    return {name for (name,) in found}


def _drop(session: SqliteSession, shop: Shop, table: str) -> None:
    """Remove what was captured of a table, which may be declared no longer."""
    names = LogNames(shop, table)
    for event in _TRIGGERS:
        session.rows(f"DROP TRIGGER IF EXISTS {quoted(names.trigger(event))}")
    for kind in ("changes", "replaced"):
        session.rows(f"DROP TABLE IF EXISTS {quoted(f'{prefix(shop)}{kind}_{table}')}")
    if session.rows("SELECT 1 FROM sqlite_master WHERE name = ?", (f"{prefix(shop)}captures",)):
        session.rows(f"DELETE FROM {housekeeping(shop, 'captures')} WHERE table_name = ?", (table,))


def _array(values: tuple[Any, ...], kind: Any) -> Any:
    if pa.types.is_string(kind):
        return pa.array([_text(each) for each in values], kind)
    if pa.types.is_boolean(kind):
        return pa.array(values, pa.int64()).cast(kind)
    if pa.types.is_decimal(kind):
        return pa.array([None if each is None else _decimal(each) for each in values], kind)
    if pa.types.is_date(kind):
        return pa.array([None if each is None else date.fromisoformat(each) for each in values])
    if pa.types.is_timestamp(kind):
        return pa.array([None if each is None else _moment(each) for each in values], kind)
    return pa.array(values, kind)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        raise pa.ArrowInvalid("a blob has no plain text form")
    return value if value is None else str(value)


def _decimal(value: Any) -> Decimal:
    """SQLite keeps a decimal as a whole number, a float (its shortest form counts) or a text."""
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is no number") from None


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text such as 2017-01-02 10:00:00.000001")
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
