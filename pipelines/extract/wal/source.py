"""Reads a shop's changes from PostgreSQL's log, each of them once.

A position is a place in the log: every transaction that committed before it was taken. An
extraction goes on from there and stops at the first transaction that committed at or after the
interval's end. Each extraction writes an empty message into the log first, so that there always
is such a transaction, and it is the same one for every table: no transaction straddles intervals.

The shop's slot is never read itself. A temporary copy of it is consumed in bounded steps and
vanishes with the session, also when that is killed; the shop's slot moves on only in `release`,
to what every table has on record. Reading the slot itself by `…_peek_…` begins at its start with
every call, and serves one session at a time.

The first extraction gives the rows that the table held at the interval's end. It reads the rows
present in one snapshot, takes back what the log says was committed after that end and is in the
snapshot, and adds what was committed before that end and is not: so the hand-over to the log has
neither gap nor overlap, however busy the writers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from pipelines.extract.databases.postgres import catalogue, values
from pipelines.extract.databases.postgres.copy import FIELD, copied, read_csv
from pipelines.extract.databases.postgres.types import unfit
from pipelines.extract.pseudonyms import key_for, pseudonymise
from pipelines.extract.schema import SourceColumn, compare
from pipelines.extract.source import Position, Taken, change_schema
from pipelines.extract.wal import install
from pipelines.extract.wal.install import Log, Slot, open_database
from pipelines.extract.wal.pgoutput import Chunk, Decoder, Ints, Relation, Rows, Transactions
from pipelines.shared.columns import DELETE, INSERT
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import (
    CaptureMissing,
    CorruptPartition,
    SchemaDrift,
    SourceUnavailable,
)
from pipelines.shared.intervals import Interval
from pipelines.shared.settings import Settings

STEP = 500_000
"""Changes that the server decodes at once, and keeps in a temporary file beyond work_mem; a
larger transaction is one step."""

DECODING_MEMORY = "256MB"
"""What the server may hold of unfinished transactions before it writes them to disk: with its
default of 64MB a large one takes three times as long."""

_MARK = "SELECT pg_logical_emit_message(true, 'freshrank', '')"
_HERE = """
    SELECT pg_current_wal_flush_lsn() - '0/0',
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""
_COPY_SLOT = "SELECT pg_copy_logical_replication_slot(%s, %s, true)"
_CHANGES = """
    COPY (SELECT data FROM pg_logical_slot_get_binary_changes(
              {slot}, '0/0'::pg_lsn + {upto}, {step}, 'proto_version', '1',
              'publication_names', {publication}, 'messages', 'true')
          WHERE get_byte(data, 0) IN (66, 82, 84)  -- begin, relation, truncate
                OR get_byte(data, 0) IN (68, 73, 85) AND substring(data, 2, 4) = {relation})
    TO STDOUT (FORMAT binary)
"""


class WalSource:
    """Changes from the shop's replication slot; see `wal_install`.

    Args:
        url: SQLAlchemy URL of the shop's database.
        shop: its declaration.
        settings: bring the key of the pseudonyms.
    """

    def __init__(self, url: str, shop: Shop, settings: Settings) -> None:
        self._url, self._shop, self._settings = url, shop, settings

    def clock(self) -> datetime:
        """The server's time, which stamps its commits."""
        with open_database(self._url) as connection:
            now: datetime = connection.execute("SELECT clock_timestamp()").fetchone()[0]
        return now.astimezone(UTC)

    def check(self, table: str) -> None:
        """See `ChangeSource.check`."""
        key_for(self._settings, table, self._shop.tables[table])
        with open_database(self._url) as connection:
            if faults := catalogue.drift(connection, self._shop, table):
                raise SchemaDrift("; ".join(faults))
            if fault := install.capture_fault(connection, self._shop, table):
                raise CaptureMissing(fault)

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[Taken]:
        """See `ChangeSource.changes`. The position is complete once the batches are read.

        Raises:
            CaptureMissing: the log does not reach back to `after`, or the table was truncated.
            CorruptPartition: what was seen up to `upto` was let go of already.
        """
        with open_database(self._url) as connection:
            if fault := install.capture_fault(connection, self._shop, table):
                raise CaptureMissing(fault)
            known = install.recorded(connection, self._shop)
            slot = install.find_slot(connection, known)
            here = connection.execute(_HERE).fetchone()[0]
        assert known is not None and slot is not None  # noqa: S101, PT018 -- no fault
        log = known.tables[table]
        if after is not None and after.get("log") == log.id:
            start = int(after["lsn"])
            self._require_held(table, slot, start, int(here), upto)
        else:
            start = None
            self._require_begun(table, log, before, upto)
        reading = _Reading(self, table, log, slot, before, after, start, upto)
        with reading.opened() as batches:
            yield Taken(reading.position, change_schema(self._shop.tables[table]), batches)

    def _require_held(
        self, table: str, slot: Slot, start: int, here: int, upto: Position | None
    ) -> None:
        if slot.confirmed <= start <= here:
            return
        if upto is not None:
            raise CorruptPartition(
                f"the server's log let go of its changes when changes/{table} had them on record; "
                "bring the partition back from a backup of the lake where it is lost"
            )
        raise CaptureMissing(
            f"the log of {table} was read up to {_lsn(start)}, but the slot {slot.name} holds "
            f"{_lsn(slot.confirmed)} to {_lsn(here)}: somebody moved it, or the database was "
            f"restored from a backup; {install.ANEW}"
        )

    def _require_begun(self, table: str, log: Log, before: datetime, upto: Position | None) -> None:
        if upto is not None:
            raise CorruptPartition(
                f"its partition of changes/{table} holds the rows found when capture began, which "
                "no log has; bring it back from a backup of the lake where it is lost"
            )
        began = datetime.fromisoformat(str(log.began))
        if before > began:
            return
        grid = self._shop.grid
        first = grid.anchor + (began - grid.anchor) // grid.step * grid.step
        raise CaptureMissing(
            f"changes of {table} are captured since {began.isoformat()}; the first interval they "
            f"can be given for is {Interval(first, first + grid.step)}"
        )


def pending_bytes(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """How many bytes of the log lie behind each table's position, where it has one.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    with open_database(url) as connection:
        here = int(connection.execute(_HERE).fetchone()[0])
    known = {table: positions.get(table, {}) for table in shop.tables}
    return {table: here - int(each["lsn"]) for table, each in known.items() if "lsn" in each}


@dataclass
class _Reading:
    """One extraction of one table."""

    source: WalSource
    table: str
    log: Log
    slot: Slot
    before: datetime
    after: Position | None
    start: int | None
    """Place in the log to go on from; None: begin with the rows present."""
    upto: Position | None

    def __post_init__(self) -> None:
        self.shop = self.source._shop
        self.declared = self.shop.tables[self.table]
        self.names = list(self.declared.stored_columns())
        self.key = key_for(self.source._settings, self.table, self.declared)
        self.position: dict[str, Any] = {}
        self.place = int((self.after or {}).get("next", 0))
        self.checked: Relation | None = None
        self.padded: set[str] = set()
        self.present: dict[str, SourceColumn] = {}
        """Columns that the table has now and that its log can carry."""
        self.newest_xid = 0
        self.end = 0

    @contextmanager
    def opened(self) -> Iterator[Iterator[pa.RecordBatch]]:
        with (
            open_database(self.source._url) as plain,
            open_database(self.source._url) as reader,
        ):
            found = catalogue.columns_of(plain, self.shop.source.schema_name, self.table)
            self.padded = {name for name, column in found.items() if column.type == "bpchar"}
            generated = catalogue.generated(plain, self.log.oid)
            self.present = {name: each for name, each in found.items() if name not in generated}
            plain.commit()
            reader.autocommit = True
            reader.execute(f"SET logical_decoding_work_mem = '{DECODING_MEMORY}'")
            copy = f"freshrank_{uuid4().hex}"
            reader.execute(_COPY_SLOT, [self.slot.name, copy])
            if self.start is not None and self.start > self.slot.confirmed:
                move = "SELECT pg_replication_slot_advance(%s, '0/0'::pg_lsn + %s)"
                reader.execute(move, [copy, self.start])
            if self.start is None:
                batches = self._begin(plain, reader, copy)
            else:
                self._mark()
                batches = self._follow(self._chunks(plain, reader, copy), self.start)
            with closing(batches):
                yield batches

    def _mark(self) -> None:
        """Make sure that the log shows an end of the interval, and learn where it ends itself."""
        with open_database(self.source._url) as connection:
            if self.upto is None:
                # Also brings to disk, and so into reach, what asynchronous commits left behind.
                connection.execute("SET LOCAL synchronous_commit = local")
                connection.execute(_MARK)
                connection.commit()
            end, self.newest_xid = connection.execute(_HERE).fetchone()
        self.end = int(end if self.upto is None else self.upto["lsn"])

    def _chunks(self, plain: Any, reader: Any, copy: str) -> Iterator[Chunk]:
        """The table's changes and every transaction's beginning, step by step."""
        decoder = Decoder(self.log.oid)
        query = sql.SQL(_CHANGES).format(
            slot=sql.Literal(copy),
            upto=sql.Literal(self.end),
            step=sql.Literal(STEP),
            publication=sql.Literal(f'"{install.publication(self.shop)}"'),
            relation=sql.Literal(self.log.oid.to_bytes(4, "big")),
        )
        begun = True
        while begun:
            begun = False
            for messages in copied(reader, query, binary=True):
                for chunk in decoder.chunks(messages, FIELD):
                    begun = begun or len(chunk.begun.lsn) > 0
                    if chunk.relation is not self.checked:
                        self.checked = chunk.relation
                        self._check(plain, chunk.relation)
                    yield chunk

    def _check(self, plain: Any, relation: Relation | None) -> None:
        """The table as it was when the log was written may differ from what it is now."""
        if relation is None:
            return
        found = catalogue.logged(plain, relation.columns)
        if set(found) <= set(self.present):
            # Nothing was dropped or renamed since: what is missing was added later.
            found = {**self.present, **found}
        if faults := compare(self.shop, self.table, found, unfit):
            raise SchemaDrift(
                f"the log holds changes of {self.table} from when it was otherwise: "
                f"{'; '.join(faults)}. Declare it as it was until these are extracted, or "
                f"{install.ANEW}"
            )

    def _follow(self, chunks: Iterator[Chunk], start: int) -> Generator[pa.RecordBatch, None, None]:
        for chunk in chunks:
            stop = self._stop(chunk.begun, start)
            lsn = chunk.transactions.lsn
            self._refuse_truncate(chunk, start, stop)
            mask = (lsn >= start) if stop is None else (lsn >= start) & (lsn < stop)
            yield from self._batches(chunk.rows(mask, self.names, self.declared.key))
            if stop is not None:
                break
        else:
            stop = self._at_end()
        self._finish(stop)

    def _begin(self, plain: Any, reader: Any, copy: str) -> Generator[pa.RecordBatch, None, None]:
        plain.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        now = "SELECT pg_current_snapshot()::text, pg_current_xact_id()::text::bigint"
        source = sql.Identifier(self.shop.source.schema_name, self.table)
        with plain.transaction():
            # A snapshot does not protect from TRUNCATE, which empties the table for all of them.
            plain.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(source))
            snapshot, xid = plain.execute(now).fetchone()
            self._mark()
            self.place = max(self.place, self.end)
            stop, undone, missed = self._since(self._chunks(plain, reader, copy), snapshot)
            began = datetime.fromisoformat(str(self.log.began))
            stamp = (0, int(began.timestamp()) * 1_000_000 + began.microsecond, xid)
            absent = undone.select(self.declared.key) if undone is not None else None
            query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)")
            columns = sql.SQL(", ").join(map(sql.Identifier, self.names))
            for lines in copied(plain, query.format(columns, source), binary=False):
                yield from self._found(_without(read_csv(lines, self.names), absent), stamp)
            if undone is not None:
                there = undone.filter(undone["_there"])
                yield from self._found(there.select(self.names), stamp)
            for rows in missed:
                yield from self._batches(rows)
        self._finish(stop)

    def _since(
        self, chunks: Iterator[Chunk], snapshot: str
    ) -> tuple[int, pa.Table | None, list[Rows]]:
        """How the state at the interval's end differs from a snapshot.

        Returns the end's place in the log; of each key that was changed after it, the row at
        that time (`_there`: whether there was one); changes from before it that were not seen.
        """
        stop: int | None = None
        undone, missed = [], []
        for chunk in chunks:
            stop = self._stop(chunk.begun, 0) if stop is None else stop
            lsn = chunk.transactions.lsn
            early = np.ones(len(lsn), bool) if stop is None else lsn < stop
            seen = _visible(snapshot, self._whole(chunk.transactions.xid))
            if stop is not None:
                self._refuse_truncate(chunk, stop, None)
            rows = chunk.rows(early & ~seen, self.names, self.declared.key)
            if len(rows.op):
                missed.append(rows)
            images = chunk.rows(~early & seen, self.names, self.declared.key, images=True)
            if len(images.op):
                there = pc.equal(images.op, pa.scalar(DELETE))
                undone.append(pa.table({**images.columns, "_there": there}))
        stop = self._at_end() if stop is None else stop
        return stop, _first(undone, self.declared.key), missed

    def _stop(self, begun: Transactions, start: int) -> int | None:
        """Commit position of the first transaction that is not of this interval."""
        if self.upto is not None:
            over = begun.lsn >= int(self.upto["lsn"])
        else:
            over = (begun.at >= _micros(self.before)) & (begun.lsn >= start)
        return int(begun.lsn[over.argmax()]) if over.any() else None

    def _at_end(self) -> int:
        if self.upto is not None:
            return int(self.upto["lsn"])
        raise SourceUnavailable(
            f"the server's clock has not reached {self.before.isoformat()}, so the interval may "
            "still get changes; run again after that"
        )

    def _refuse_truncate(self, chunk: Chunk, start: int, stop: int | None) -> None:
        lsn = chunk.truncated
        lsn = lsn[(lsn >= start) & (lsn < (stop if stop is not None else np.iinfo(np.int64).max))]
        if len(lsn):
            raise CaptureMissing(
                f"{self.table} was truncated (log position {_lsn(int(lsn[0]))}), and the log does "
                "not say which rows that deleted; use DELETE or `capture: trigger` where that "
                f"happens, and now {install.ANEW}"
            )

    def _finish(self, stop: int) -> None:
        self.position.update(
            log=self.log.id, lsn=stop, next=self.place, end=self.before.isoformat()
        )

    def _found(self, rows: Any, stamp: tuple[int, int, int]) -> Iterator[pa.RecordBatch]:
        """Rows of the beginning, as inserts."""
        columns = {name: _whole_array(rows[name]) for name in self.names}
        full = (np.full(rows.num_rows, value, np.int64) for value in stamp)
        op = pa.repeat(pa.scalar(INSERT), rows.num_rows)
        yield from self._batches(Rows(columns, op, Transactions(*full)), whole=True)

    def _batches(self, rows: Rows, whole: bool = False) -> Iterator[pa.RecordBatch]:
        count = len(rows.op)
        if not count:
            return
        schema = change_schema(self.declared)
        arrays = [self._array(schema.field(name), rows.columns[name]) for name in self.names]
        xids = rows.transactions.xid if whole else self._whole(rows.transactions.xid)
        arrays += [
            rows.op,
            pa.array(rows.transactions.at).cast(pa.timestamp("us", "UTC")),
            pa.array(np.arange(self.place, self.place + count)),
            pa.array(xids),
        ]
        self.place += count
        yield pa.record_batch(arrays, schema=schema)

    def _array(self, field: Any, texts: Any) -> Any:
        if field.name in self.padded:
            texts = pc.utf8_rtrim(texts, " ")
        if self.declared.personal.get(field.name) == "pseudonymise":
            return pseudonymise(texts, self.key)
        return values.parse(self.table, field, texts)

    def _whole(self, xid: Ints) -> Ints:
        """Transaction ids of 64 bits: the log has the lower 32."""
        newest = int(self.newest_xid)
        xid = xid + (newest & ~0xFFFFFFFF)
        return np.where(xid - newest > 1 << 31, xid - (1 << 32), xid)


def _without(rows: pa.Table, absent: pa.Table | None) -> pa.Table:
    """Rows whose key is not among the absent."""
    if absent is None:
        return rows
    numbered = rows.append_column("_place", pa.array(range(rows.num_rows)))
    kept = numbered.join(absent, absent.column_names, join_type="left anti")
    return rows.take(kept["_place"].combine_chunks().sort())


def _first(pieces: list[pa.Table], key: list[str]) -> pa.Table | None:
    """The first row of each key."""
    if not pieces:
        return None
    rows = pa.concat_tables(pieces)
    numbered = rows.select(key).append_column("_place", pa.array(range(rows.num_rows)))
    return rows.take(numbered.group_by(key).aggregate([("_place", "min")])["_place_min"])


def _visible(snapshot: str, xid: Ints) -> Any:
    """Whether a snapshot sees transactions, as `pg_visible_in_snapshot` has it."""
    oldest, newest, running = snapshot.split(":")
    active = np.array([int(each) for each in running.split(",") if each], np.int64)
    return (xid < int(oldest)) | (xid < int(newest)) & ~np.isin(xid, active)


def _whole_array(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _micros(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds


def _lsn(place: int) -> str:
    return f"{place >> 32:X}/{place & 0xFFFFFFFF:X}"
