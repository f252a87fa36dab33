"""Reads changed rows from any SQLAlchemy database by a cursor column, with SELECT alone.

An extraction reads, in one read-only snapshot, every row whose cursor lies at or after the last
one seen less the lag, and drops what it took before: the same key, cursor and content. What was
taken stands in an index of keys (`cursor_index`), files that the position names. So a row that
was committed late, or shares its cursor with one already taken, is found as long as its cursor
lies within the lag. What lies behind it, and rows that are gone, only `reconcile` finds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from pipelines.extract.cursor.check import cursor_of, faulty, unfit_cursor
from pipelines.extract.cursor.key_index import (
    CURSOR,
    FILES,
    LIVE,
    VERSION,
    KeyIndex,
    quoted,
    versions,
)
from pipelines.extract.cursor.snapshot import Snapshot, open_snapshot
from pipelines.extract.pseudonyms import key_for, pseudonymise
from pipelines.extract.source import Position, Taken, change_schema
from pipelines.shared.columns import DELETE, INSERT, UPDATE
from pipelines.shared.declaration import Shop, Table
from pipelines.shared.errors import CaptureMissing, SchemaDrift
from pipelines.shared.intervals import utc
from pipelines.shared.lake import Lake
from pipelines.shared.settings import Settings

_ROW, _DELETED = "_row", "_deleted"
_TICK = timedelta(microseconds=1)
_AT_ONCE = 200
"""Cursor values asked for in one query."""

# What is new about a row `r`, given the last entry `l` of its key.
_NEWS = f"""
    CASE WHEN r.{_DELETED} THEN coalesce(l.{LIVE}, false)
         ELSE NOT coalesce(l.{LIVE} AND l.{CURSOR} = r.{CURSOR} AND {{same}}, false) END
"""
_SAME = f"(l.{VERSION} IS NULL OR l.{VERSION} = r.{VERSION})"
_OP = f"CASE WHEN r.{_DELETED} THEN '{DELETE}' WHEN l.{LIVE} THEN '{UPDATE}' ELSE '{INSERT}' END"


class CursorSource:
    """Rows found by their cursor column; see `docs/adr/0009-cursor-needs-an-index-of-keys.md`.

    Args:
        url: SQLAlchemy URL of the shop's database.
        shop: its declaration.
        settings: where the index of keys lies, and the key of the pseudonyms.
    """

    def __init__(self, url: str, shop: Shop, settings: Settings) -> None:
        self._url, self._shop, self._settings = url, shop, settings

    def clock(self) -> datetime:
        """The database's clock, in UTC."""
        with open_snapshot(self._url, self._shop) as snapshot:
            return snapshot.now()

    def check(self, table: str) -> None:
        """See `ChangeSource.check`."""
        key_for(self._settings, table, self._shop.tables[table])
        with open_snapshot(self._url, self._shop) as snapshot:
            if faults := faulty(snapshot, table):
                raise SchemaDrift("; ".join(faults))

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[Taken]:
        """See `ChangeSource.changes`.

        With `upto` the rows are what they are now: only where none changed since is the answer
        the same, which the caller has to check.

        Raises:
            SchemaDrift: a cursor is null; or the key or cursor is declared otherwise than at
                `after`.
            CaptureMissing: `after` was given by another way of capturing.
            CorruptPartition: the index of keys is gone.
        """
        declared = self._shop.tables[table]
        with open_snapshot(self._url, self._shop) as snapshot:
            if faults := unfit_cursor(snapshot, table):
                raise SchemaDrift("; ".join(faults))
            _require_same(table, declared, after)
            extraction = _Extraction(snapshot, self._settings, table, before, after, upto)
            batches = extraction.batches()
            try:
                yield Taken(extraction.position, change_schema(declared), batches)
            finally:
                batches.close()


def pending(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """How many rows of each table lie beyond the last cursor value taken.

    Raises:
        SchemaDrift: a table is gone.
        SourceUnavailable: the database does not answer.
    """
    found = {}
    with open_snapshot(url, shop) as snapshot:
        for name, table in shop.tables.items():
            source = snapshot.table(name)
            query = sa.select(sa.func.count()).select_from(source)
            high = _read(positions.get(name, {}).get("high"))
            if high is not None:
                beyond = high + (_TICK if isinstance(high, datetime) else 1)
                column = source.c[cursor_of(table).column]
                query = query.where(column >= snapshot.moment(beyond))
            found[name] = int(snapshot.connection.scalar(query) or 0)
    return found


@dataclass
class _Extraction:
    snapshot: Snapshot
    settings: Settings
    name: str
    before: datetime
    after: Position | None
    upto: Position | None
    row: int = field(default=0, init=False)
    """Changes given so far; they are numbered from 1, up to 2^32."""

    def __post_init__(self) -> None:
        shop = self.snapshot.shop
        self.declared: Table = shop.tables[self.name]
        self.cursor = cursor_of(self.declared)
        self.timed = self.declared.columns[self.cursor.column] == "timestamp"
        self.stored = self.declared.stored_columns()
        self.source = self.snapshot.table(self.name)
        self.secret = key_for(self.settings, self.name, self.declared)
        after = self.after or {"ordinal": 0, "files": [], "high": None}
        self.ordinal = after["ordinal"] + 1
        self.index = KeyIndex(
            Lake(self.settings.lake, shop.shop).uri(f"taken/{self.name}"),
            pa.schema([(name, self.stored[name]) for name in self.declared.key]),
            pa.timestamp("us", "UTC") if self.timed else pa.int64(),
            after["files"],
            self.settings.threads,
        )
        self.index.require()
        seen = _read(after["high"])
        self.lower = None if seen is None else self._less_lag(seen)
        self.high = self._high(seen)
        self.window = None if self.high is None else self._less_lag(self.high)
        self.at = utc(self.upto["at"]) if self.upto else self.snapshot.now()
        # A change belongs to the interval although it was noticed after its end.
        self.noticed = min(self.at, self.before - _TICK)

    @property
    def file(self) -> str:
        """The index's further file."""
        return f"{self.ordinal:08d}"

    @property
    def merges(self) -> bool:
        """Whether the index's files are written together."""
        return len(self.index.names) >= FILES

    @property
    def position(self) -> dict[str, Any]:
        """Where the next extraction goes on."""
        files = [f"{self.file}-all"] if self.merges else [*self.index.names, self.file]
        high = self.high.isoformat() if isinstance(self.high, datetime) else self.high
        return {
            "ordinal": self.ordinal, "high": high, "at": self.at.isoformat(), "files": files,
            "of": _identity(self.declared),
        }  # fmt: skip

    def batches(self) -> Generator[pa.RecordBatch, None, None]:
        """The changes; the index is durable when the last one was taken."""
        with ExitStack() as stack:
            engine = stack.enter_context(self.index.engine())
            if self.upto is not None:
                for rows, _ in self._news(engine):
                    yield rows
                return
            self.index.tidy(self.ordinal - 1)
            with self.index.writer(self.file) as writer:
                for rows, entries in self._news(engine):
                    writer.write_batch(entries)
                    yield rows
        if self.merges:
            self.index.merge(self.file, f"{self.file}-all")

    def _news(self, engine: Any) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        yield from self._judged(engine, self._due())
        if self.cursor.reconcile and self.index.names and self.lower is not None:
            with tempfile.TemporaryDirectory(prefix="freshrank-") as folder:
                yield from self._reconciled(engine, Path(folder) / "keys.parquet")

    def _judged(self, engine: Any, condition: Any) -> Iterator[tuple[Any, Any]]:
        """Changes among the rows that fulfil a condition, each batch with its index entries."""
        column = self.source.c[self.cursor.column]
        order = [column, *(self.source.c[name] for name in self.declared.key)]
        names = list(self.stored)
        for batch in self._stream(names, condition, order):
            known = self._known(batch)
            if self.index.names:
                version = versions(engine, batch)
            else:
                version = self._versions_in_window(engine, batch, known.column(CURSOR))
            known = known.append_column(VERSION, version)
            rows, ops = self._compared(engine, known)
            if len(rows) == batch.num_rows:
                yield self._given(batch, ops, known)
            elif len(rows):
                yield self._given(batch.take(rows), ops, known.take(rows))

    def _stream(self, names: list[str], condition: Any, order: Any = ()) -> Iterator[Any]:
        wanted = pa.schema([(name, self.stored[name]) for name in names])
        selected = [
            self.snapshot.selected(self.source.c[each.name], each.type).label(each.name)
            for each in wanted
        ]
        query = sa.select(*selected).where(condition).order_by(*order)
        for batch in self.snapshot.stream(self.name, query, wanted):
            if any(batch.column(name).null_count for name in self.declared.key):
                raise SchemaDrift(
                    f"{self.name} has rows without a whole key ({', '.join(self.declared.key)}); "
                    f"name columns that are never null in `tables.{self.name}.key`"
                )
            arrays = [
                pseudonymise(array, self.secret) if name in self.declared.personal else array
                for name, array in zip(names, batch.columns, strict=True)
            ]
            yield pa.record_batch(arrays, schema=wanted)

    def _known(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What the index is asked with: key, place, cursor and whether the row is deleted."""
        deleted: Any = pa.repeat(pa.scalar(False), batch.num_rows)
        if self.cursor.deleted is not None:
            mark: Any = batch.column(self.cursor.deleted)
            deleted = (
                pc.fill_null(mark, False) if pa.types.is_boolean(mark.type) else mark.is_valid()
            )
        return (
            batch.select(self.declared.key)
            .append_column(_ROW, pa.array(np.arange(batch.num_rows)))
            .append_column(CURSOR, batch.column(self.cursor.column).cast(self.index.cursor))
            .append_column(_DELETED, deleted)
        )

    def _versions_in_window(self, engine: Any, batch: pa.RecordBatch, cursor: Any) -> Any:
        """Versions of the rows that will be read again; they come last."""
        again = pc.greater_equal(cursor, pa.scalar(self.window, cursor.type)).true_count
        once = batch.num_rows - again
        tail = versions(engine, batch.slice(once)) if again else pa.array([], pa.uint64())
        return pa.concat_arrays([pa.nulls(once, pa.uint64()), tail])

    def _compared(self, engine: Any, known: pa.RecordBatch) -> tuple[Any, Any]:
        """Places of the rows that bring news, and what they are."""
        if not self.index.names:
            rows = known.column(_ROW).filter(pc.invert(known.column(_DELETED)))
            return rows, pa.repeat(pa.scalar(INSERT), len(rows))
        engine.register("batch", known)
        found = engine.sql(
            f"SELECT r.{_ROW}, {_OP} AS op FROM batch AS r LEFT JOIN "
            f"({self.index.latest('batch')}) AS l USING ({quoted(self.declared.key)}) "
            f"WHERE {_NEWS.format(same=_SAME)} ORDER BY 1"
        ).to_arrow_table()
        return found.column(_ROW).combine_chunks(), found.column("op").combine_chunks()

    def _given(self, rows: Any, ops: Any, known: Any) -> tuple[Any, Any]:
        """Changes as they are given, and their entries in the index."""
        count = rows.num_rows
        place = (self.ordinal << 32) + self.row + 1
        self.row += count
        ordinal = pa.repeat(pa.scalar(self.ordinal, pa.int64()), count)
        committed = known.column(CURSOR) if self.timed else self._noticed(count)
        own = [ops, committed, pa.array(np.arange(place, place + count)), ordinal]
        live = pc.not_equal(ops, pa.scalar(DELETE))
        key = [rows.column(name) for name in self.declared.key]
        entries = [*key, known.column(CURSOR), known.column(VERSION), live, ordinal]
        return (
            pa.record_batch([*rows.columns, *own], schema=change_schema(self.declared)),
            pa.record_batch(entries, schema=self.index.schema),
        )

    def _noticed(self, count: int) -> Any:
        return pa.repeat(pa.scalar(self.noticed, pa.timestamp("us", "UTC")), count)

    def _reconciled(self, engine: Any, path: Path) -> Iterator[tuple[Any, Any]]:
        """What no cursor shows: rows that came behind the lag, and keys that are gone."""
        self._write_keys(path)
        engine.read_parquet(str(path)).create_view("present", replace=True)
        key = quoted(self.declared.key)
        latest = self.index.latest()
        missed = engine.sql(
            f"SELECT DISTINCT r.{CURSOR} FROM present AS r LEFT JOIN ({latest}) AS l USING ({key}) "
            f"WHERE r.{CURSOR} < $1 AND {_NEWS.format(same='true')} ORDER BY 1",
            params=[self.lower],
        ).to_arrow_table()
        values = missed.column(CURSOR).to_pylist()
        for start in range(0, len(values), _AT_ONCE):
            yield from self._judged(engine, self._at(values[start : start + _AT_ONCE]))
        gone = engine.sql(
            f"SELECT {key} FROM ({latest}) AS l ANTI JOIN present USING ({key}) "
            f"WHERE {LIVE} ORDER BY ALL"
        )
        for keys in gone.to_arrow_reader(20_000):
            yield self._vanished(keys)

    def _write_keys(self, path: Path) -> None:
        marks = [self.cursor.column, *([self.cursor.deleted] if self.cursor.deleted else [])]
        names = list(dict.fromkeys([*self.declared.key, *marks]))
        schema = pa.schema(
            [
                *self.index.key,
                (_ROW, pa.int64()),
                (CURSOR, self.index.cursor),
                (_DELETED, pa.bool_()),
            ]
        )
        with pq.ParquetWriter(path, schema) as writer:
            for batch in self._stream(names, sa.true()):
                writer.write_batch(self._known(batch).cast(schema))

    def _vanished(self, keys: pa.RecordBatch) -> tuple[Any, Any]:
        """Deletes of rows of which only the key is known."""
        count = keys.num_rows
        missing: Any = pa.nulls
        columns = [
            keys.column(name).cast(kind) if name in self.declared.key else missing(count, kind)
            for name, kind in self.stored.items()
        ]
        rows = pa.record_batch(columns, schema=pa.schema(list(self.stored.items())))
        known = pa.record_batch(
            {CURSOR: self._noticed(count) if self.timed else pa.nulls(count, pa.int64()),
             VERSION: pa.nulls(count, pa.uint64())}
        )  # fmt: skip
        return self._given(rows, pa.repeat(pa.scalar(DELETE), count), known)

    def _due(self) -> Any:
        column = self.source.c[self.cursor.column]
        parts = [sa.true()]
        if self.lower is not None:
            parts.append(column >= self.snapshot.moment(self.lower))
        if self.timed:
            parts.append(column < self.snapshot.moment(self.before))
        if self.upto is not None:
            parts.append(self._until(column))
        return sa.and_(*parts)

    def _until(self, column: Any) -> Any:
        """What the extraction that ended at `upto` could see."""
        high = self.high
        if isinstance(high, datetime):
            return column < self.snapshot.moment(high + _TICK)
        return sa.false() if high is None else column <= high

    def _at(self, values: list[Any]) -> Any:
        column = self.source.c[self.cursor.column]
        if not self.timed:
            return column.in_(values)
        moment = self.snapshot.moment
        spans = [
            sa.and_(column >= moment(value), column < moment(value + _TICK)) for value in values
        ]
        return sa.or_(*spans)

    def _high(self, seen: Any) -> Any:
        """The last cursor before the interval's end; it never goes back."""
        if self.upto is not None:
            return _read(self.upto["high"])
        column = self.source.c[self.cursor.column]
        query = sa.select(self.snapshot.selected(sa.func.max(column), self.index.cursor))
        if self.timed:
            query = query.where(column < self.snapshot.moment(self.before))
        found = self.snapshot.connection.scalar(query)
        if found is not None and self.timed:
            found = utc(found)
        return max((each for each in (seen, found) if each is not None), default=None)

    def _less_lag(self, value: Any) -> Any:
        if not self.timed:
            return value - self.cursor.lag_numbers
        return max(value, utc("0001-02-01") + self.cursor.lag) - self.cursor.lag


def _read(high: Any) -> Any:
    return utc(high) if isinstance(high, str) else high


def _identity(table: Table) -> dict[str, Any]:
    stored = table.stored_columns()
    key = {name: str(stored[name]) for name in table.key}
    return {"cursor": cursor_of(table).column, "key": key}


def _require_same(name: str, table: Table, after: Position | None) -> None:
    if after is None:
        return
    if "ordinal" not in after:
        raise CaptureMissing(
            f"{name} was captured in another way until now, whose position says nothing to a "
            "cursor; go on with the `capture` declared before, or begin anew with an empty lake "
            "and ledger of this shop"
        )
    if after["of"] != _identity(table):
        raise SchemaDrift(
            f"{name} is declared with other key or cursor columns than it was extracted with "
            f"({after['of']}); declare these again, or begin anew with an empty lake and ledger "
            "of this shop"
        )
