"""Reads the changes of a MySQL or MariaDB shop from its row binlog, each of them once.

A position is a place in the log, between two transactions, with the time its file was begun and
the server's identity, so that a log of another history is noticed. An extraction takes the
transactions from its position up to, not including, the first one that was committed at or after
the interval's end, in the order of their commits; where there is none yet, up to the end that the
log had at the start. Every table stops by the same rule, so transactions stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa

from pipelines.extract.binlog.extraction import Extraction, Row
from pipelines.extract.binlog.install import faults
from pipelines.extract.binlog.snapshot import snapshot
from pipelines.extract.binlog.stream import FRESH_SNAPSHOT, Begin, Place, log_end, log_files
from pipelines.extract.databases.mysql.catalogue import drift
from pipelines.extract.databases.mysql.connection import connect, now
from pipelines.extract.source import (
    BATCH,
    BATCH_BYTES,
    ChangeBatch,
    DatabaseSource,
    Position,
    change_schema,
)
from pipelines.shared.columns import DELETE, INSERT, UPDATE
from pipelines.shared.errors import CaptureMissing, CorruptPartition, SchemaDrift


class BinlogSource(DatabaseSource):
    """Changes that the server's binlog holds; see `install`."""

    def clock(self) -> datetime:
        """The server's time."""
        with connect(self._url, "binlog") as connection:
            return now(connection)

    def check(self, table: str) -> None:
        """See `ChangeSource.check`."""
        self._key(table)
        with connect(self._url, "binlog") as connection:
            if wrong := faults(connection, self._shop.source.schema_name):
                raise CaptureMissing("; ".join(wrong))
            if drifts := drift(connection, self._shop, table):
                raise SchemaDrift("; ".join(drifts))

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[ChangeBatch]:
        """See `ChangeSource.changes`; the position is whole once the batches were read.

        Raises:
            CaptureMissing: the log does not go on from `after`, or does not reach back to `before`.
            CorruptPartition: a first extraction cannot be read again.
        """
        declared = self._shop.source.snapshot
        if after is not None and "last" not in after:
            raise self.from_another_mode(table)
        first = after is None or after["snapshot"] != declared
        if upto is not None and (first or upto["snapshot"] != declared):
            raise CorruptPartition(
                f"the partition of {table} was a first extraction, which the binlog cannot give "
                "again; bring it back from a backup of the lake where it is lost, or "
                f"{FRESH_SNAPSHOT}"
            )
        key = self._key(table)
        with connect(self._url, "binlog", stream=True) as connection:
            extraction = Extraction(self._url, self._shop, table, key, connection)
            extraction.position |= {
                "end": before.isoformat(), "last": after["last"] if after is not None else 0
            }  # fmt: skip
            batches = (
                snapshot(extraction, before)
                if after is None or first
                else _follow(extraction, before, after, upto)
            )
            yield ChangeBatch(extraction.position, change_schema(self._shop.tables[table]), batches)


def _follow(
    extraction: Extraction, before: datetime, after: Position, upto: Position | None
) -> Iterator[pa.RecordBatch]:
    """The changes from a position on."""
    start = _require(extraction, after)
    end = log_end(extraction.connection) if upto is None else _require(extraction, upto)
    extraction.reached(start, after.get("gtid", ""))
    return _followed(extraction, before, start, end)


def _followed(
    extraction: Extraction, before: datetime, start: Place, end: Place
) -> Iterator[pa.RecordBatch]:
    changes = _Changes(extraction)
    transaction: Begin | None = None
    gtid = extraction.position["gtid"]
    for event in extraction.log(start).events(end):
        if isinstance(event, Begin):
            if event.at >= before:
                end = event.place
                break
            transaction, gtid = event, event.gtid or gtid
        elif transaction is not None:
            changes.add(transaction, event)
            if changes.full:
                yield changes.batch()
                changes = _Changes(extraction)
    if changes.rows:
        yield changes.batch()
    extraction.reached(end, gtid)


def _require(extraction: Extraction, position: Position) -> Place:
    """The place of a position, if this server's log still goes on from it."""
    place, server = Place(position["file"], position["offset"]), extraction.position["server"]
    where = f"the last position of {extraction.table} ({place.file}:{place.offset})"
    if position["server"] != server:
        raise CaptureMissing(
            f"{where} belongs to the server {position['server']}, but this is the server "
            f"{server}; connect to the former, or {FRESH_SNAPSHOT}"
        )
    if place.file not in log_files(extraction.connection):
        raise CaptureMissing(
            f"{where} is gone: the server has deleted that binlog file; {FRESH_SNAPSHOT}, "
            "and let the server keep its binlog for longer than two intervals"
        )
    end = log_end(extraction.connection)
    if extraction.created(place.file) != position["created"] or end < place:
        raise CaptureMissing(
            f"{where} is in a log that this server no longer has (RESET MASTER, or a restored "
            f"backup); {FRESH_SNAPSHOT}"
        )
    return place


class _Changes:
    """Changes gathered until there are enough for a batch."""

    def __init__(self, extraction: Extraction) -> None:
        self.rows: list[Row] = []
        self._extraction = extraction
        self._ops: list[str] = []
        self._times: list[datetime] = []
        self._transactions: list[int] = []
        self._bytes = 0

    def add(self, transaction: Begin, event: Any) -> None:
        """Add what a row event changes: a row that stays as it is, as stored, is no change."""
        key_of = self._extraction.key_of
        for before, after in self._extraction.images(event):
            if before is not None and after is not None:
                if before == after:
                    continue
                if key_of(before) == key_of(after):
                    self._add(UPDATE, after)
                    continue
            if before is not None:
                self._add(DELETE, before)
            if after is not None:
                self._add(INSERT, after)
        count = len(self.rows) - len(self._times)
        self._times += [transaction.at] * count
        self._transactions += [transaction.place.as_int] * count
        self._bytes += event.packet.event_size

    def _add(self, op: str, row: Row) -> None:
        self._ops.append(op)
        self.rows.append(row)

    @property
    def full(self) -> bool:
        return len(self.rows) >= BATCH or self._bytes >= BATCH_BYTES

    def batch(self) -> pa.RecordBatch:
        return self._extraction.batch(
            self._extraction.arrays(self.rows),
            pa.array(self._ops, pa.string()),
            pa.array(self._times, pa.timestamp("us", tz="UTC")),
            pa.array(self._transactions, pa.int64()),
        )
