"""Reads a shop's changes from PostgreSQL's log, each of them once.

A position is a place in the log: every transaction that committed before it was extracted. An
extraction goes on from there and stops at the first transaction that committed at or after the
interval's end. Each extraction writes an empty message into the log first, so that there always
is such a transaction, and it is the same one for every table: no transaction straddles intervals.

The shop's slot is never read itself. A temporary copy of it is consumed in bounded steps and
vanishes with the session, also when that is killed; the shop's slot moves on only in `release`,
to what every table has on record. Reading the slot itself by `…_peek_…` begins at its start with
every call, and serves one session at a time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import pyarrow as pa

from pipelines.extract.databases.postgres.catalogue import drift
from pipelines.extract.source import ChangeBatch, DatabaseSource, Position, change_schema
from pipelines.extract.wal.extraction import HERE, Extraction, written
from pipelines.extract.wal.slot import FRESH_START, Log, Slot, capture_fault, open_database, state
from pipelines.extract.wal.snapshot import snapshot
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, CorruptPartition, SchemaDrift


class WalSource(DatabaseSource):
    """Changes from the shop's replication slot; see `install` and `Mode.source`."""

    def clock(self) -> datetime:
        """The server's time, which stamps its commits."""
        with open_database(self._url) as connection:
            now: datetime = connection.execute("SELECT clock_timestamp()").fetchone()[0]
        return now.astimezone(UTC)

    def check(self, table: str) -> None:
        """See `ChangeSource.check`."""
        self._key(table)
        with open_database(self._url) as connection:
            if faults := drift(connection, self._shop, table):
                raise SchemaDrift("; ".join(faults))
            if fault := capture_fault(connection, self._shop, table):
                raise CaptureMissing(fault)

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[ChangeBatch]:
        """See `ChangeSource.changes`. The position is complete once the batches are read.

        Raises:
            CaptureMissing: the log does not reach back to `after`, or the table was truncated.
            CorruptPartition: the log up to `upto` was given up already.
        """
        with open_database(self._url) as connection:
            if fault := capture_fault(connection, self._shop, table):
                raise CaptureMissing(fault)
            known, slot = state(connection, self._shop)
            here = connection.execute(HERE).fetchone()[0]
        assert known is not None and slot is not None  # noqa: S101, PT018 -- no fault
        log = known.tables[table]
        if after is not None and after.get("log") == log.id:
            start = int(after["lsn"])
            self._require_held(table, slot, start, int(here), upto)
        else:
            start = None
            self._require_begun(table, log, before, upto)
        key = self._key(table)
        place = int((after or {}).get("next", 0))
        with open_database(self._url) as plain, open_database(self._url) as reader:
            extraction = Extraction(
                self._url, self._shop, table, key, log, before, upto, place, plain, reader
            )
            extraction.copy_slot(slot, start)
            batches = snapshot(extraction) if start is None else _follow(extraction, start)
            with closing(batches):
                yield ChangeBatch(extraction.position, change_schema(extraction.declared), batches)

    def _require_held(
        self, table: str, slot: Slot, start: int, here: int, upto: Position | None
    ) -> None:
        if slot.confirmed <= start <= here:
            return
        if upto is not None:
            raise CorruptPartition(
                f"the server's log gave up its changes when changes/{table} had them on record; "
                "bring the partition back from a backup of the lake where it is lost"
            )
        raise CaptureMissing(
            f"the log of {table} was read up to {written(start)}, but the slot {slot.name} holds "
            f"{written(slot.confirmed)} to {written(here)}: somebody moved it, or the database was "
            f"restored from a backup; {FRESH_START}"
        )

    def _require_begun(self, table: str, log: Log, before: datetime, upto: Position | None) -> None:
        if upto is not None:
            raise CorruptPartition(
                f"its partition of changes/{table} holds the rows present when capture began, "
                "which no log has; bring it back from a backup of the lake where it is lost"
            )
        began = datetime.fromisoformat(str(log.began))
        if before > began:
            return
        raise CaptureMissing(
            f"changes of {table} are captured since {began.isoformat()}; the first interval they "
            f"can be given for is {self._shop.grid.step_of(began)}"
        )


def pending_bytes(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """How many bytes of the log lie behind each table's position, where it has one.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    with open_database(url) as connection:
        here = int(connection.execute(HERE).fetchone()[0])
    known = {table: positions.get(table, {}) for table in shop.tables}
    return {table: here - int(each["lsn"]) for table, each in known.items() if "lsn" in each}


def _follow(extraction: Extraction, start: int) -> Generator[pa.RecordBatch, None, None]:
    """The changes from a place in the log on."""
    extraction.mark()
    for chunk in extraction.chunks():
        stop = extraction.stop(chunk.begun, start)
        lsn = chunk.transactions.lsn
        extraction.refuse_truncate(chunk, start, stop)
        mask = (lsn >= start) if stop is None else (lsn >= start) & (lsn < stop)
        rows = chunk.rows(mask, extraction.names, extraction.declared.key)
        yield from extraction.batches(rows)
        if stop is not None:
            break
    else:
        stop = extraction.at_end()
    extraction.finish(stop)
