"""Reads captured changes from a shop's PostgreSQL database, each of them once.

A position is a snapshot of the database (`pg_current_snapshot`) and the end of the interval. The
first extraction of an interval leaves the snapshot as a mark for the other tables. A change was
taken if the snapshot saw its transaction and the transaction's last change was written before that
end; an extraction takes every other change whose transaction ended before its own end. So a
transaction in flight, or one that wrote on both sides of the end, is taken whole by a later
interval, a gap by the interval after it, and changes with a commit time ahead of an interval wait
for theirs. (Where a column tells the commit time, each row goes by its own.) What is left splits
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
from pipelines.extract.pseudonyms import key_for, pseudonymise
from pipelines.extract.source import (
    FIRST_BATCH,
    Position,
    Taken,
    change_schema,
    rows_to_fetch,
)
from pipelines.extract.trigger.postgres.install import capture_fault
from pipelines.extract.trigger.postgres.sql import CLOCK, Capture, schema_name
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift
from pipelines.shared.intervals import utc
from pipelines.shared.settings import Settings

_EVER = datetime.max.replace(tzinfo=UTC)

_LOG = 'SELECT log::text FROM "{schema}".captures WHERE table_name = %s'
_MARK = 'SELECT "{schema}".mark(%s)::text'
_DIVIDED = """
    ANY (ARRAY(SELECT transaction FROM "{schema}".transactions
               WHERE last_at >= {end} AND first_at < {end}))
"""
# Python's calendar ends where PostgreSQL's goes on; infinity becomes its first or last moment.
_WITHIN = {
    "timestamptz": "CASE WHEN {0} < '0001-01-01 00:00+00' THEN '0001-01-01 00:00+00' "
    "WHEN {0} > '9999-12-31 23:59:59.999999+00' THEN '9999-12-31 23:59:59.999999+00' ELSE {0} END",
    "date": "CASE WHEN {0} < '0001-01-01' THEN '0001-01-01' "
    "WHEN {0} > '9999-12-31' THEN '9999-12-31' ELSE {0} END",
    "numeric": "trim_scale({0})",
}


class TriggerSource:
    """Changes that triggers wrote down; see `install`.

    Args:
        url: SQLAlchemy URL of the shop's database.
        shop: its declaration.
        settings: bring the key of the pseudonyms.
    """

    def __init__(self, url: str, shop: Shop, settings: Settings) -> None:
        self._url, self._shop, self._settings = url, shop, settings

    def clock(self) -> datetime:
        """The time in the shop: `freshrank.clock` where it is set, else the server's."""
        with connect(self._url) as connection:
            now: datetime = connection.execute(f"SELECT {CLOCK}").fetchone()[0]
        return now.astimezone(UTC)

    def check(self, table: str) -> None:
        """See `ChangeSource.check`."""
        key_for(self._settings, table, self._shop.tables[table])
        with connect(self._url) as connection:
            if faults := drift(connection, self._shop, table):
                raise SchemaDrift("; ".join(faults))
            if fault := capture_fault(connection, Capture(self._shop, table)):
                raise CaptureMissing(fault)

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[Taken]:
        """See `ChangeSource.changes`."""
        capture = Capture(self._shop, table)
        snapshot = upto["snapshot"] if upto else _mark(self._url, capture.schema, before)
        with connect(self._url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            (log,) = connection.execute(_LOG.format(schema=capture.schema), [table]).fetchone()
            if after is not None and after["log"] != log:
                after = None  # Captured anew: the new log begins with every row there is.
            position = {"snapshot": snapshot, "end": before.isoformat(), "log": log}
            # The whole result is wanted, not its first rows.
            connection.execute("SET LOCAL cursor_tuple_fraction = 1")
            with psycopg.ServerCursor(connection, "freshrank") as cursor:
                cursor.execute(*changes_query(capture, before, after, snapshot))
                batches = self._batches(table, cursor)
                yield Taken(position, change_schema(self._shop.tables[table]), batches)

    def _batches(self, table: str, cursor: Any) -> Iterator[pa.RecordBatch]:
        declared = self._shop.tables[table]
        key = key_for(self._settings, table, declared)
        schema = change_schema(declared)
        count = FIRST_BATCH
        while rows := cursor.fetchmany(count):
            arrays = []
            for field, values in zip(schema, zip(*rows, strict=True), strict=True):
                array = _array(table, field, values)
                if declared.personal.get(field.name) == "pseudonymise":
                    array = pseudonymise(array, key)
                arrays.append(array)
            batch = pa.record_batch(arrays, schema=schema)
            yield batch
            count = rows_to_fetch(batch.num_rows, batch.nbytes)


def pending(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """How many committed changes of each table no extraction has taken yet.

    Args:
        positions: the last position of each table that has one.

    Raises:
        CaptureMissing: changes are not captured.
        SourceUnavailable: the database cannot be reached.
    """
    found = {}
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
            (found[table],) = connection.execute(
                f"SELECT count(*) FROM ({query}) AS due", bound
            ).fetchone()
    return found


def prune(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """Let go of taken changes that a later one of the same row has overtaken; see `Mode.prune`.

    The last change of each row that is there stays: by it capture catches up after it was off.
    """
    found = {}
    with connect(url) as connection:
        for table, position in positions.items():
            capture = Capture(shop, table)
            if fault := capture_fault(connection, capture):
                raise CaptureMissing(fault)
            (log,) = connection.execute(_LOG.format(schema=capture.schema), [table]).fetchone()
            if position["log"] != log:
                continue
            bound = {"end": utc(position["end"]), "seen": position["snapshot"]}
            found[table] = connection.execute(_overtaken(capture), bound).rowcount
        if positions.keys() >= shop.tables.keys():
            schema = schema_name(shop)
            end = min(utc(each["end"]) for each in positions.values())
            connection.execute(f'DELETE FROM "{schema}".transactions WHERE last_at < %s', [end])
            connection.execute(f'DELETE FROM "{schema}".marks WHERE before < %s', [end])
    return found


def _overtaken(capture: Capture) -> str:
    taken = "committed_at < %(end)s AND pg_visible_in_snapshot(transaction, %(seen)s::pg_snapshot)"
    if capture.stamped:
        divided = _DIVIDED.format(schema=capture.schema, end="%(end)s")
        taken += f" AND NOT transaction = {divided}"
    return f"""
        DELETE FROM {capture.changes} WHERE ctid IN (
            SELECT place FROM (
                SELECT ctid AS place, op, taken,
                       row_number() OVER (PARTITION BY {capture.keys} ORDER BY seq DESC) AS age,
                       bool_and(taken) OVER (PARTITION BY {capture.keys}) AS all_taken
                FROM (SELECT ctid, seq, op, {capture.keys}, {taken} AS taken
                      FROM {capture.changes}) AS c
            ) AS k
            WHERE taken AND (age > 1 OR op = 'delete' AND all_taken))"""


def _mark(url: str, schema: str, before: datetime) -> str:
    """The snapshot that all tables' extractions of the interval with this end read."""
    with connect(url) as connection:
        (snapshot,) = connection.execute(_MARK.format(schema=schema), [before]).fetchone()
    return str(snapshot)


def _array(table: str, field: Any, values: tuple[Any, ...]) -> Any:
    try:
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise SchemaDrift(
            f"{table}.{field.name} holds a value that does not fit its declared type "
            f"({error}); declare a wider type in `tables.{table}.columns.{field.name}`"
        ) from error


def changes_query(
    capture: Capture, before: datetime, after: Position | None, snapshot: str
) -> tuple[str, dict[str, Any]]:
    """The changes to take, in the order of `seq`, with the columns of `change_schema`."""
    bound: dict[str, Any] = {"before": before, "snapshot": snapshot}
    due = (
        "committed_at < %(before)s "
        "AND pg_visible_in_snapshot(transaction, %(snapshot)s::pg_snapshot)"
    )
    if capture.stamped:
        divided = _DIVIDED.format(schema=capture.schema, end="%(before)s")
        due += f" AND NOT transaction = {divided}"
    pieces = [f"SELECT * FROM {capture.changes} WHERE {due}"]
    if after is not None:
        bound |= {"end": utc(after["end"]), "seen": after["snapshot"]}
        unseen = (
            "committed_at < %(end)s AND transaction >= pg_snapshot_xmin(%(seen)s::pg_snapshot) "
            "AND NOT pg_visible_in_snapshot(transaction, %(seen)s::pg_snapshot)"
        )
        rest = ["committed_at >= %(end)s", unseen]
        if capture.stamped:
            divided = _DIVIDED.format(schema=capture.schema, end="%(end)s")
            rest.append(
                f"committed_at < %(end)s AND transaction = {divided} "
                "AND pg_visible_in_snapshot(transaction, %(seen)s::pg_snapshot)"
            )
        pieces = [f"{pieces[0]} AND {part}" for part in rest]
    columns = ", ".join(
        _WITHIN.get(kind, "{0}").format(f'"{name}"') for name, kind in capture.columns.items()
    )
    query = (
        f"SELECT {columns}, op, committed_at, seq, transaction::text::bigint "
        f"FROM ({' UNION ALL '.join(pieces)}) AS taken ORDER BY seq"
    )
    return query, bound
