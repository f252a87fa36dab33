"""The reader of trigger capture's log, in databases without PostgreSQL's snapshots.

The log numbers the changes of each table (see `sql`). A number is drawn before its
transaction commits, so a position is not one number: it is the highest number seen, the numbers
below it that were not (`open`, as ranges), and the transactions that were seen and left for the
next interval (`held`). A change was extracted if it was seen, committed before the position's end
and not held; an extraction takes every other change committed before its own end. So its cost
follows the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa

from pipelines.extract.source import (
    AHEAD,
    EPOCH,
    FIRST_BATCH,
    INSTALL,
    NAMED,
    ChangeBatch,
    DatabaseSource,
    Position,
    StampedAhead,
    change_schema,
    microseconds,
    rows_to_fetch,
)
from pipelines.extract.trigger.numbered.sql import LogTable, housekeeping, prefix
from pipelines.shared.columns import CHANGE_COLUMNS, COMMITTED_AT, POSITION
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift
from pipelines.shared.intervals import utc
from pipelines.shared.settings import Settings

PRUNED_AT_ONCE = 1_000
"""Changes that one transaction deletes, so that the shop's writers never wait long."""
_EVER = 1 << 62


class Session(Protocol):
    """One connection to a shop's database, as the reader needs it."""

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a small answer."""

    def stream(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a large answer, in bounded batches."""

    def now(self, shop: Shop) -> datetime:
        """The time in the shop."""

    def tables(self, shop: Shop) -> set[str]:
        """Names of the database's tables."""

    def drift(self, shop: Shop, table: str) -> list[str]:
        """Every way in which a table departs from its declaration."""

    def fault(self, shop: Shop, table: str) -> str:
        """Why a table's changes are not, or not all, captured; empty where they are."""

    def log(self, shop: Shop, table: str) -> LogTable:
        """Names and SQL for a table."""

    def selected(self, log: LogTable) -> str:
        """The stored columns as `arrays` wants them."""

    def arrays(self, log: LogTable, rows: list[tuple[Any, ...]], key: bytes) -> list[Any]:
        """Stored columns as Arrow arrays, pseudonyms in place, and the misfits."""

    def settled(self, shop: Shop) -> bool:
        """Whether every transaction that wrote before now has ended."""

    def held(self, log: LogTable, due: str, before: int) -> list[int]:
        """Transactions among those due that went on at or after a time."""

    def begin(self) -> None:
        """From here on, see one state of the database."""

    def forget(self, shop: Shop, before: datetime) -> None:
        """Delete what is kept about transactions that ended before a time."""


Opened = Callable[[str], AbstractContextManager[Session]]


class LogSource(DatabaseSource):
    """Changes that triggers wrote down, in the kind of database that `opened` connects to."""

    def __init__(self, url: str, shop: Shop, settings: Settings, opened: Opened) -> None:
        super().__init__(url, shop, settings)
        self._open = opened

    def clock(self) -> datetime:
        """See `ChangeSource.clock`."""
        with self._open(self._url) as session:
            return session.now(self._shop)

    def check(self, table: str) -> None:
        """See `ChangeSource.check`."""
        self._key(table)
        with self._open(self._url) as session:
            if faults := session.drift(self._shop, table):
                raise SchemaDrift("; ".join(faults))
            if fault := session.fault(self._shop, table):
                raise CaptureMissing(fault)

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[ChangeBatch]:
        """See `ChangeSource.changes`.

        Raises:
            CaptureMissing: `after` was given by another capture mode.
        """
        with self._open(self._url) as session:
            settled = not after or not after.get("open") or session.settled(self._shop)
            session.begin()
            log = session.log(self._shop, table)
            name = _log_of(session, log)
            after = _known(after, name, table)
            end = microseconds(before)
            if upto is not None:
                held = list(upto["held"])
            else:
                held = session.held(log, log.due(end, after, None, []), end)
            position = _position(session, log, after, settled) | {
                "end": before.isoformat(), "log": name, "held": held,
            }  # fmt: skip
            due = log.due(end, after, upto, held)
            yield ChangeBatch(
                position, change_schema(log.declared), self._batches(session, log, due)
            )

    def _batches(self, session: Session, log: LogTable, due: str) -> Iterator[pa.RecordBatch]:
        key = self._key(log.table)
        schema = change_schema(log.declared)
        own = ", ".join(f"c.{name}" for name in CHANGE_COLUMNS)
        stored = len(log.stored)
        for rows in session.stream(
            f"SELECT {session.selected(log)}, {own} FROM ({due}) AS d "
            f"JOIN {log.changes} AS c ON c.{POSITION} = d.{POSITION} ORDER BY d.{POSITION}"
        ):
            arrays = session.arrays(log, [row[:stored] for row in rows], key)
            ops, times, places, numbers = zip(*(row[stored:] for row in rows), strict=True)
            own_arrays = [
                pa.array(ops, pa.string()),
                pa.array(times, pa.int64()).cast(schema.field(COMMITTED_AT).type),
                pa.array(places, pa.int64()),
                pa.array(numbers, pa.int64()),
            ]
            yield pa.record_batch([*arrays, *own_arrays], schema=schema)


def pending(
    url: str, shop: Shop, positions: Mapping[str, Position], opened: Opened
) -> dict[str, int]:
    """How many committed changes of each table were not extracted yet; see `Mode.pending`.

    Raises:
        CaptureMissing: changes are not captured.
        SourceUnavailable: the database cannot be reached.
    """
    counts = {}
    with opened(url) as session:
        for table in shop.tables:
            if fault := session.fault(shop, table):
                raise CaptureMissing(fault)
            log = session.log(shop, table)
            after = _known(positions.get(table), _log_of(session, log), table)
            ((count,),) = session.rows(
                f"SELECT count(*) FROM ({log.due(_EVER, after, None, [])}) AS d"
            )
            counts[table] = int(count)
    return counts


def ahead(url: str, shop: Shop, opened: Opened) -> list[StampedAhead]:
    """Captured changes that are stamped in the far future; see `Mode.ahead`."""
    found = []
    with opened(url) as session:
        end = microseconds(session.now(shop) + AHEAD)
        for table in sorted(shop.tables):
            if session.fault(shop, table):
                continue  # Which says more.
            rows = session.rows(session.log(shop, table).stamped_after(end, NAMED))
            found += [
                StampedAhead.of(shop, table, key, (EPOCH + timedelta(microseconds=at)).isoformat())
                for *key, at in rows
            ]
    return found


def prune(
    url: str, shop: Shop, positions: Mapping[str, Position], opened: Opened
) -> dict[str, int]:
    """Delete extracted changes that a later one of the same row has overtaken; see `Mode.prune`."""
    deleted = {}
    with opened(url) as session:
        for table, position in positions.items():
            if fault := session.fault(shop, table):
                raise CaptureMissing(fault)
            log = session.log(shop, table)
            known = _known(position, _log_of(session, log), table)
            places = [] if known is None else session.rows(log.overtaken(known))
            for start in range(0, len(places), PRUNED_AT_ONCE):
                some = places[start : start + PRUNED_AT_ONCE]
                session.rows(log.without([place for (place,) in some]))
            deleted[table] = len(places)
        if positions.keys() >= shop.tables.keys():
            session.forget(shop, min(utc(each["end"]) for each in positions.values()))
    return deleted


def check(url: str, shop: Shop, opened: Opened) -> list[str]:
    """What is wrong with the shop's tables and their capture, each with the way out.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    findings = []
    with opened(url) as session:
        for table in sorted(shop.tables):
            findings += session.drift(shop, table)
            if fault := session.fault(shop, table):
                findings.append(fault)
    return findings


def in_batches(cursor: Any) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a cursor, few at a time where they are large."""
    count = FIRST_BATCH
    while rows := list(cursor.fetchmany(count)):
        yield rows
        texts = sum(len(each) for row in rows for each in row if isinstance(each, str | bytes))
        count = rows_to_fetch(len(rows), texts)


def captured(session: Session, shop: Shop) -> set[str]:
    """The tables for which capture is installed; some may be declared no longer."""
    if f"{prefix(shop)}captures" not in session.tables(shop):
        return set()
    rows = session.rows(f"SELECT table_name FROM {housekeeping(shop, 'captures')}")
    return {str(name) for (name,) in rows}


def require_declared(session: Session, shop: Shop) -> None:
    """Make sure that every table is as declared.

    Raises:
        SchemaDrift: one is not.
    """
    drifts = [each for table in sorted(shop.tables) for each in session.drift(shop, table)]
    if drifts:
        raise SchemaDrift("; ".join(drifts))


def require_order(session: Session, log: LogTable, at: datetime | None) -> None:
    """Make sure that rows are not captured as of a time before changes already captured.

    Raises:
        CaptureMissing: they would be.
    """
    ((last,),) = session.rows(f"SELECT max({COMMITTED_AT}) FROM {log.changes}")
    if at is not None and last is not None and microseconds(at) < last:
        moment = EPOCH + timedelta(microseconds=last)
        raise CaptureMissing(
            f"{log.table} was captured until {moment.isoformat()} already, so its rows cannot be "
            f"captured as of {at.isoformat()}; run `python -m pipelines capture remove` first to "
            "start afresh"
        )


def missing(table: str) -> str:
    """The fault that a table is not captured."""
    return f"changes of {table} are not captured; {INSTALL}"


def mismatch(table: str) -> str:
    """The fault that what is installed for a table is not what should be."""
    return (
        f"capture of {table} was switched off, removed or does not match the table and its "
        f"declaration any more; {INSTALL}, which catches up"
    )


def _log_of(session: Session, log: LogTable) -> str:
    rows = session.rows(
        f"SELECT log FROM {housekeeping(log.shop, 'captures')} WHERE table_name = '{log.table}'"
    )
    return str(rows[0][0]) if rows else ""


def _known(after: Position | None, name: str, table: str) -> Position | None:
    """The position; None if capture was installed afresh, with every row there is as a change."""
    if after is not None and ("log" not in after or "high" not in after):
        raise DatabaseSource.from_another_mode(table)
    return after if after is not None and after["log"] == name else None


def _position(
    session: Session, log: LogTable, after: Position | None, settled: bool
) -> dict[str, Any]:
    """What is seen now. Numbers missing at `after` are dead once their transactions ended."""
    low = 0
    if after is not None:
        low = after["high"] if settled else after["low"]
    ((high,),) = session.rows(f"SELECT max({POSITION}) FROM {log.changes}")
    gaps = session.rows(log.gaps(low))
    return {
        "low": low,
        "high": max(low, int(high or 0)),
        "open": [[int(first), int(last)] for first, last in gaps],
    }
