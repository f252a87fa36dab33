"""Reads captured changes from a shop's PostgreSQL database, each of them once.

A position is a snapshot of the database (`pg_current_snapshot`) and the end of the interval. The
first extraction of an interval leaves the snapshot as a mark for the other tables. A change was
taken if the snapshot saw its transaction and the transaction's last change was written before that
end; an extraction takes every other change whose transaction ended before its own end. So a
transaction in flight, or one that wrote on both sides of the end, is taken whole by a later
interval, a gap by the interval after it, and changes with a commit time ahead of an interval wait
for theirs. (Where a column has the commit time, each row goes by its own.) What is left splits
into ranges that are small and indexed: commit times from the position's end on, transactions that
the snapshot may not have seen, and those that the position's end would have divided. https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pyarrow as pa

from pipelines.extract.databases.postgres.catalogue import drift
from pipelines.extract.databases.postgres.connection import connect
from pipelines.extract.databases.values import fitted
from pipelines.extract.source import (
    AHEAD,
    FIRST_BATCH,
    NAMED,
    ChangeBatch,
    DatabaseSource,
    Position,
    StampedAhead,
    change_schema,
    rows_to_fetch,
)
from pipelines.extract.trigger.postgres.install import capture_fault
from pipelines.extract.trigger.postgres.query import (
    calendar_columns,
    changes_query,
    overtaken,
    stamped_ahead,
)
from pipelines.extract.trigger.postgres.sql import CLOCK, Capture
from pipelines.shared.columns import CHANGE_COLUMNS
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift
from pipelines.shared.intervals import utc

_EVER = datetime.max.replace(tzinfo=UTC)

_LOG = 'SELECT log::text FROM "{schema}".captures WHERE table_name = %s'
_MARK = 'SELECT "{schema}".mark(%s)::text'


class TriggerSource(DatabaseSource):
    """Changes that triggers wrote down; see `install` and `Mode.source`."""

    def clock(self) -> datetime:
        """The time in the shop: `freshrank.clock` where it is set, else the server's."""
        with connect(self._url) as connection:
            now: datetime = connection.execute(f"SELECT {CLOCK}").fetchone()[0]
        return now.astimezone(UTC)

    def check(self, table: str) -> None:
        """See `ChangeSource.check`."""
        self._key(table)
        with connect(self._url) as connection:
            if faults := drift(connection, self._shop, table):
                raise SchemaDrift("; ".join(faults))
            if fault := capture_fault(connection, Capture(self._shop, table)):
                raise CaptureMissing(fault)

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[ChangeBatch]:
        """See `ChangeSource.changes`."""
        capture = Capture(self._shop, table)
        snapshot = upto["snapshot"] if upto else _mark(self._url, capture.schema, before)
        with connect(self._url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            (log,) = connection.execute(_LOG.format(schema=capture.schema), [table]).fetchone()
            if after is not None and after["log"] != log:
                after = None  # Captured again: the new log begins with every row there is.
            position = {"snapshot": snapshot, "end": before.isoformat(), "log": log}
            # The whole result is wanted, not its first rows.
            connection.execute("SET LOCAL cursor_tuple_fraction = 1")
            with psycopg.ServerCursor(connection, "freshrank") as cursor:
                cursor.execute(*changes_query(capture, before, after, snapshot))
                batches = self._batches(capture, cursor)
                yield ChangeBatch(position, change_schema(self._shop.tables[table]), batches)

    def _batches(self, capture: Capture, cursor: Any) -> Iterator[pa.RecordBatch]:
        declared = self._shop.tables[capture.table]
        key = self._key(capture.table)
        schema = change_schema(declared)
        stored, own = len(capture.columns), len(CHANGE_COLUMNS)
        count = FIRST_BATCH
        while rows := cursor.fetchmany(count):
            columns = list(zip(*rows, strict=True))
            outside = dict(zip(calendar_columns(capture), columns[stored + own :], strict=True))
            arrays = fitted(declared, columns[:stored], key, _array, outside)
            arrays += [
                pa.array(values, schema.field(name).type)
                for name, values in zip(CHANGE_COLUMNS, columns[stored : stored + own], strict=True)
            ]
            batch = pa.record_batch(arrays, schema=schema)
            yield batch
            count = rows_to_fetch(batch.num_rows, batch.nbytes)


def _array(_: str, values: Any, kind: Any) -> Any:
    return pa.array(values, kind)


def pending(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """How many committed changes of each table are not extracted yet; see `Mode.pending`."""
    rows = {}
    with connect(url) as connection:
        for table in shop.tables:
            capture = Capture(shop, table)
            if fault := capture_fault(connection, capture):
                raise CaptureMissing(fault)
            (log,) = connection.execute(_LOG.format(schema=capture.schema), [table]).fetchone()
            (now,) = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
            after = positions.get(table)
            after = after if after is not None and after["log"] == log else None
            query, bound = changes_query(capture, _EVER, after, now)
            (rows[table],) = connection.execute(
                f"SELECT count(*) FROM ({query}) AS due", bound
            ).fetchone()
    return rows


def ahead(url: str, shop: Shop) -> list[StampedAhead]:
    """Captured changes that are stamped in the far future; see `Mode.ahead`."""
    found = []
    with connect(url) as connection:
        for table in sorted(shop.tables):
            capture = Capture(shop, table)
            if capture_fault(connection, capture):
                continue  # Which says more.
            rows = connection.execute(stamped_ahead(capture), {"ahead": AHEAD, "named": NAMED})
            found += [StampedAhead.of(shop, table, key, at) for *key, at in rows.fetchall()]
    return found


def prune(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """Delete extracted changes that a later one of the same row has overtaken; see `Mode.prune`.

    The last change of each row that is there stays: by it capture catches up after it was off.
    """
    deleted = {}
    with connect(url) as connection:
        for table, position in positions.items():
            capture = Capture(shop, table)
            if fault := capture_fault(connection, capture):
                raise CaptureMissing(fault)
            (log,) = connection.execute(_LOG.format(schema=capture.schema), [table]).fetchone()
            if position["log"] != log:
                continue
            bound = {"end": utc(position["end"]), "seen": position["snapshot"]}
            deleted[table] = connection.execute(overtaken(capture), bound).rowcount
        if positions.keys() >= shop.tables.keys():
            schema, end = shop.footprint, min(utc(each["end"]) for each in positions.values())
            connection.execute(f'DELETE FROM "{schema}".transactions WHERE last_at < %s', [end])
            connection.execute(f'DELETE FROM "{schema}".marks WHERE before < %s', [end])
    return deleted


def _mark(url: str, schema: str, before: datetime) -> str:
    """The snapshot that all tables' extractions of the interval with this end read."""
    with connect(url) as connection:
        (snapshot,) = connection.execute(_MARK.format(schema=schema), [before]).fetchone()
    return str(snapshot)
