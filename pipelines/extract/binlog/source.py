"""Reads the changes of a MySQL or MariaDB shop from its row binlog, each of them once.

A position is a place in the log, between two transactions, with the time its file was begun and
the server's identity, so that a log of another history is noticed. An extraction takes the
transactions from its position up to, not including, the first one that was committed at or after
the interval's end, in the order of their commits; where there is none yet, up to the end that the
log had at the start. Every table stops by the same rule, so transactions stay whole.

The first extraction of a table gives it as it was at that same stop: a consistent snapshot of now,
in which every row that was changed since is put back to the image it had before its first change.
So nothing of the next interval is in it, and the log goes on from the stop without gap or overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pymysqlreplication.row_event import DeleteRowsEvent, WriteRowsEvent

from pipelines.extract.binlog.stream import HEADER, Begin, Log, Place, created
from pipelines.extract.databases.mysql import catalogue
from pipelines.extract.databases.mysql import connection as binlog_server
from pipelines.extract.pseudonyms import key_for
from pipelines.extract.source import (
    BATCH,
    BATCH_BYTES,
    FIRST_BATCH,
    Position,
    Taken,
    change_schema,
    rows_to_fetch,
)
from pipelines.shared.columns import DELETE, INSERT, UPDATE
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, CorruptPartition, SchemaDrift
from pipelines.shared.intervals import Interval
from pipelines.shared.settings import Settings

_Change = tuple[str, tuple[Any, ...]]
"""Operation and row."""


class BinlogSource:
    """Changes that the server's binlog holds; see `binlog_server.install`.

    Args:
        url: SQLAlchemy URL of the shop's database.
        shop: its declaration.
        settings: bring the key of the pseudonyms.
    """

    def __init__(self, url: str, shop: Shop, settings: Settings) -> None:
        self._url, self._shop, self._settings = url, shop, settings

    def clock(self) -> datetime:
        """The server's time."""
        with binlog_server.connect(self._url) as connection:
            now: datetime = binlog_server.rows(connection, "SELECT UTC_TIMESTAMP(6)")[0][0]
        return now.replace(tzinfo=UTC)

    def check(self, table: str) -> None:
        """See `ChangeSource.check`."""
        key_for(self._settings, table, self._shop.tables[table])
        with binlog_server.connect(self._url) as connection:
            if faults := binlog_server.faults(connection, self._shop.source.schema_name):
                raise CaptureMissing("; ".join(faults))
            if faults := catalogue.drift(connection, self._shop, table):
                raise SchemaDrift("; ".join(faults))

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[Taken]:
        """See `ChangeSource.changes`; the position is whole once the batches were read.

        Raises:
            CaptureMissing: the log does not go on from `after`, or does not reach back to `before`.
            CorruptPartition: a first extraction cannot be read again.
        """
        declared = self._shop.source.snapshot
        if after is not None and "last" not in after:
            raise CaptureMissing(
                f"the last position of {table} comes from another way of capturing changes; go "
                "back to it in shop.yaml, or begin anew with an empty lake and ledger"
            )
        anew = after is None or after["snapshot"] != declared
        if upto is not None and (anew or upto["snapshot"] != declared):
            raise CorruptPartition(
                f"the partition of {table} was a first extraction, which the binlog cannot give "
                "again; bring it back from a backup of the lake where it is lost, or "
                f"{binlog_server.ANEW}"
            )
        with ExitStack() as stack:
            taking = self._taking(stack, table)
            taking.position["end"] = before.isoformat()
            taking.position["last"] = after["last"] if after is not None else 0
            batches = (
                taking.snapshot(before)
                if after is None or anew
                else taking.since(before, after, upto)
            )
            yield Taken(taking.position, change_schema(self._shop.tables[table]), batches)

    def _taking(self, stack: ExitStack, table: str) -> _Taking:
        connection = stack.enter_context(binlog_server.connect(self._url, stream=True))
        columns = catalogue.columns_of(connection, self._shop.source.schema_name, table)
        key = key_for(self._settings, table, self._shop.tables[table])
        position = {
            "snapshot": self._shop.source.snapshot,
            "server": binlog_server.identity(connection),
        }
        return _Taking(self._url, self._shop, table, key, connection, columns, position)


@dataclass
class _Taking:
    """One extraction of one table."""

    url: str
    shop: Shop
    table: str
    key: bytes
    connection: Any
    columns: dict[str, Any]
    position: dict[str, Any]
    first: dict[Any, tuple[Any, ...] | None] = field(default_factory=dict)
    """Key → the row before its first change since the interval's end; None where it came then."""

    def __post_init__(self) -> None:
        self.declared = self.shop.tables[self.table]
        self.schema = change_schema(self.declared)
        self.row_of = _getter(list(self.declared.stored_columns()))
        names = list(self.declared.stored_columns())
        self.key_of = _getter([names.index(name) for name in self.declared.key])
        self._known: Any = None
        self._begun: dict[str, str] = {}

    def since(
        self, before: datetime, after: Position, upto: Position | None
    ) -> Iterator[pa.RecordBatch]:
        """The changes from a position on."""
        start = self._require(after)
        end = Place(*binlog_server.log_end(self.connection))
        if upto is not None:
            end = self._require(upto)
        self._reached(start, after.get("gtid", ""))
        return self._since(before, start, end)

    def _since(self, before: datetime, start: Place, end: Place) -> Iterator[pa.RecordBatch]:
        log = Log(self.url, self.shop.source.schema_name, self.table, start)
        batch = _Batch()
        at: Begin | None = None
        gtid = self.position["gtid"]
        for event in log.events(end):
            if isinstance(event, Begin):
                if event.at >= before:
                    end = event.place
                    break
                at, gtid = event, event.gtid or gtid
            elif at is not None:
                batch.add(at, self._moves(event), event.packet.event_size)
                if batch.full:
                    yield self._record(batch)
                    batch = _Batch()
        if batch.rows:
            yield self._record(batch)
        self._reached(end, gtid)

    def snapshot(self, before: datetime) -> Iterator[pa.RecordBatch]:
        """Every row of the table as it was at the stop of an interval that ends at `before`."""
        start = self._file_at(before)
        end = self._hold_still()
        log = Log(self.url, self.shop.source.schema_name, self.table, start)
        log.heeds = False  # Before the stop, the rows found there say it all.
        stop, gtid = None, ""
        for event in log.events(end):
            if isinstance(event, Begin):
                if stop is None and event.at >= before:
                    stop, log.heeds = event.place, True
                gtid = gtid if stop else event.gtid
            elif stop is not None:
                self._remember(event)
        stop = stop or end
        self._reached(stop, gtid)
        return self._snapshot(Begin(stop, before - timedelta(microseconds=1), gtid))

    def _snapshot(self, at: Begin) -> Iterator[pa.RecordBatch]:
        gone = [row for row in self.first.values() if row is not None]
        for begin in range(0, len(gone), BATCH):
            yield self._state(self._arrays(gone[begin : begin + BATCH]), at)
        touched = self._keys(list(self.first))
        source = f"`{self.shop.source.schema_name}`.`{self.table}`"
        # Never closed: that would read what is left, also from a connection that was cut.
        cursor = self.connection.cursor()
        with binlog_server.told(self.url):
            cursor.execute(f"SELECT {catalogue.selected(self.declared, self.columns)} "
                           f"FROM {source}")  # fmt: skip
            count = FIRST_BATCH
            while rows := cursor.fetchmany(count):
                arrays = self._arrays(rows)
                count = rows_to_fetch(len(rows), sum(each.nbytes for each in arrays))
                state = self._state(arrays, at, touched)
                if state.num_rows:
                    yield state

    def _state(self, arrays: list[Any], at: Begin, without: Any = None) -> pa.RecordBatch:
        """Rows of a snapshot as inserts; their commit time is the column that tells it."""
        if without is not None and without.num_rows:
            table = pa.table(arrays, names=list(self.declared.stored_columns()))
            table = table.append_column("_place", pa.array(range(table.num_rows)))
            kept = table.join(without, self.declared.key, join_type="left anti")
            kept = kept.sort_by("_place").drop_columns("_place").combine_chunks()
            arrays = [column.combine_chunks() for column in kept.columns]
        count = len(arrays[0])
        stamp = pa.scalar(at.at, pa.timestamp("us", tz="UTC"))
        times = pa.repeat(stamp, count)
        names = list(self.declared.stored_columns())
        if self.declared.commit_time in names:
            own = arrays[names.index(self.declared.commit_time)]
            times = pc.min_element_wise(own, stamp)
        return self._finish(
            arrays, pa.repeat(INSERT, count), times, pa.repeat(at.place.as_int, count)
        )

    def _record(self, batch: _Batch) -> pa.RecordBatch:
        return self._finish(
            self._arrays(batch.rows),
            pa.array(batch.ops, pa.string()),
            pa.array(batch.at, pa.timestamp("us", tz="UTC")),
            pa.array(batch.transactions, pa.int64()),
        )

    def _finish(self, arrays: list[Any], ops: Any, times: Any, transactions: Any) -> pa.RecordBatch:
        begin = self.position["last"] + 1
        self.position["last"] += len(ops)
        places = pa.array(range(begin, begin + len(ops)), pa.int64())
        return pa.record_batch([*arrays, ops, times, places, transactions], schema=self.schema)

    def _arrays(self, rows: Sequence[Any]) -> list[Any]:
        return catalogue.arrays(self.table, self.declared, self.columns, rows, self.key)

    def _keys(self, keys: list[Any]) -> Any:
        """Keys of `first` as a table, in the types that the snapshot has them in."""
        holes = [None] * len(self.declared.stored_columns())
        names = list(self.declared.stored_columns())
        rows = []
        for key in keys:
            row = list(holes)
            for name, value in zip(self.declared.key, key, strict=True):
                row[names.index(name)] = value
            rows.append(tuple(row))
        return pa.table(self._arrays(rows), names=names).select(self.declared.key)

    def _moves(self, event: Any) -> Iterator[_Change]:
        """What a row event changes: a row that stays as it is, as far as stored, is no change."""
        for before, after in self._images(event):
            if after is None and before is not None:
                yield DELETE, before
            elif before is None and after is not None:
                yield INSERT, after
            elif before is not None and after is not None and before != after:
                if self.key_of(before) == self.key_of(after):
                    yield UPDATE, after
                else:
                    yield DELETE, before
                    yield INSERT, after

    def _remember(self, event: Any) -> None:
        """Keep what leads back from the rows that an event changed."""
        for before, after in self._images(event):
            if before is not None:
                self.first.setdefault(self.key_of(before), before)
            if after is not None:
                self.first.setdefault(self.key_of(after), None)

    def _images(
        self, event: Any
    ) -> Iterator[tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]]:
        """The stored columns of each row of an event, before and after."""
        self._require_columns(event)
        try:
            rows = event.rows
        except (UnicodeDecodeError, NotImplementedError, ValueError) as error:
            raise SchemaDrift(
                f"{self.table} holds a value that cannot be read from the binlog ({error}); "
                "change the type of its column, in which no log can be read"
            ) from error
        take = self.row_of
        if isinstance(event, WriteRowsEvent):
            return ((None, take(row["values"])) for row in rows)
        if isinstance(event, DeleteRowsEvent):
            return ((take(row["values"]), None) for row in rows)
        return ((take(row["before_values"]), take(row["after_values"])) for row in rows)

    def _require_columns(self, event: Any) -> None:
        """Make sure that the row was written with the declared columns, all of them logged."""
        if self._known is not event.columns:
            self._fit_columns({each.name: each for each in event.columns})
            self._known = event.columns
        images = [event.columns_present_bitmap, getattr(event, "columns_present_bitmap2", b"")]
        count = event.number_of_columns
        for image in images:
            if image and int.from_bytes(image, "little").bit_count() < count:
                raise CaptureMissing(
                    f"changes of {self.table} were logged in part (binlog_row_image was not FULL "
                    f"in that session); let no account change it, then {binlog_server.ANEW}"
                )

    def _fit_columns(self, logged: dict[str, Any]) -> None:
        """Make sure that rows with these columns are rows of the table as it is declared.

        A column that was added later is null in them. That it is so, and that none was renamed,
        shows in that the table still has every column that they have.
        """
        stored = list(self.declared.stored_columns())
        later = [name for name in stored if name not in logged]
        whole = logged.keys() <= self.columns.keys()
        if later and not (whole and self._generated().isdisjoint(later)):
            raise SchemaDrift(
                f"{self.table}.{later[0]} is declared, but changes in the binlog are from "
                f"when the table had no such column, or the server did not log its name "
                f"(binlog_row_metadata was not FULL); {binlog_server.ANEW}"
            )
        for name in stored:
            kind = self.declared.columns[name]
            if name in logged and name not in self.declared.personal:
                then = catalogue.logged(logged[name])
                same = kind == "uuid" and then.type == "varbinary"  # As the log has it.
                if not same and (wrong := catalogue.unfit(kind, then)):
                    raise SchemaDrift(
                        f"{self.table}.{name} is declared {kind}, but changes in the binlog are "
                        f"from when it was {then.written}, {wrong}; {binlog_server.ANEW}"
                    )
        self.row_of = _getter(stored) if not later else lambda row: tuple(map(row.get, stored))

    def _generated(self) -> set[str]:
        """Columns that no log carries."""
        with binlog_server.connect(self.url) as connection:
            return catalogue.generated(connection, self.shop.source.schema_name, self.table)

    def _hold_still(self) -> Place:
        """Begin a consistent snapshot; returns its place in the log."""
        with self.connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            if binlog_server.is_mariadb(self.connection):
                cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
                cursor.execute("SHOW STATUS LIKE 'binlog_snapshot_%'")
                status = {str(name).lower(): value for name, value in cursor.fetchall()}
                return Place(
                    status["binlog_snapshot_file"], int(status["binlog_snapshot_position"])
                )
            # MySQL does not tell the place of a snapshot: nobody may write between the two.
            cursor.execute("FLUSH TABLES WITH READ LOCK")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            place = Place(*binlog_server.log_end(self.connection))
            cursor.execute("UNLOCK TABLES")
            return place

    def _file_at(self, before: datetime) -> Place:
        """The beginning of the last log file that was begun in a second before a time."""
        for file in reversed(binlog_server.log_files(self.connection)):
            begun = created(self.url, file)
            if begun < before:
                return Place(file, HEADER)
        raise CaptureMissing(
            f"the binlog begins at {begun.isoformat()}, so {self.table} cannot be given as it was "
            f"at {before.isoformat()}; the first interval that can be extracted is "
            f"{self._first_interval(begun)}"
        )

    def _first_interval(self, begun: datetime) -> Interval:
        grid = self.shop.grid
        end = grid.anchor + ((begun - grid.anchor) // grid.step + 1) * grid.step
        return Interval(end - grid.step, end)

    def _require(self, position: Position) -> Place:
        """The place of a position, if this server's log still goes on from it."""
        place = Place(position["file"], position["offset"])
        where = f"the last position of {self.table} ({place.file}:{place.offset})"
        if position["server"] != self.position["server"]:
            raise CaptureMissing(
                f"{where} belongs to the server {position['server']}, but this is the server "
                f"{self.position['server']}; connect to the former, or {binlog_server.ANEW}"
            )
        if place.file not in binlog_server.log_files(self.connection):
            raise CaptureMissing(
                f"{where} is gone: the server has deleted that binlog file; {binlog_server.ANEW}, "
                "and let the server keep its binlog for longer than two intervals"
            )
        end = Place(*binlog_server.log_end(self.connection))
        if self._created(place.file) != position["created"] or end < place:
            raise CaptureMissing(
                f"{where} is in a log that this server no longer has (RESET MASTER, or a restored "
                f"backup); {binlog_server.ANEW}"
            )
        return place

    def _reached(self, place: Place, gtid: str) -> None:
        self.position |= {
            "file": place.file,
            "created": self._created(place.file),
            "offset": place.offset,
            "gtid": gtid,
        }

    def _created(self, file: str) -> str:
        if file not in self._begun:
            self._begun[file] = created(self.url, file).isoformat()
        return self._begun[file]


class _Batch:
    """Changes gathered until there are enough for a batch."""

    def __init__(self) -> None:
        self.ops: list[str] = []
        self.rows: list[tuple[Any, ...]] = []
        self.at: list[datetime] = []
        self.transactions: list[int] = []
        self._bytes = 0

    def add(self, begin: Begin, changes: Iterator[_Change], size: int) -> None:
        for op, row in changes:
            self.ops.append(op)
            self.rows.append(row)
        count = len(self.ops) - len(self.at)
        self.at += [begin.at] * count
        self.transactions += [begin.place.as_int] * count
        self._bytes += size

    @property
    def full(self) -> bool:
        return len(self.rows) >= BATCH or self._bytes >= BATCH_BYTES


def _getter(names: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Takes several items of a row, always as a tuple."""
    if len(names) == 1:
        return lambda row: (row[names[0]],)
    return itemgetter(*names)
