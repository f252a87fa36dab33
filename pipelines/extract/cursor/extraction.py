"""One extraction of one table by its cursor: its bounds, its position, and what is a change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from pipelines.extract.cursor.check import cursor_of
from pipelines.extract.cursor.key_index import (
    CURSOR,
    FILES,
    LIVE,
    VERSION,
    KeyIndex,
    quoted,
    versions,
)
from pipelines.extract.cursor.snapshot import Snapshot
from pipelines.extract.databases.any.values import FIRST
from pipelines.extract.pseudonyms import key_for, pseudonymise
from pipelines.extract.source import Position, change_schema
from pipelines.shared.columns import DELETE, INSERT, MISFITS, UPDATE
from pipelines.shared.declaration import Table
from pipelines.shared.errors import SchemaDrift
from pipelines.shared.forgotten import Forgotten
from pipelines.shared.intervals import utc
from pipelines.shared.lake import Lake
from pipelines.shared.run import Installation
from pipelines.shared.settings import Settings

ROW, DELETED = "_row", "_deleted"
TICK = timedelta(microseconds=1)

IS_CHANGE = f"""
    CASE WHEN r.{DELETED} THEN coalesce(l.{LIVE}, false)
         ELSE NOT coalesce(l.{LIVE} AND l.{CURSOR} = r.{CURSOR} AND {{same}}, false) END
"""
"""Whether a row `r` differs from the last entry `l` of its key."""
_SAME = f"(l.{VERSION} IS NULL OR l.{VERSION} = r.{VERSION})"
_OP = f"CASE WHEN r.{DELETED} THEN '{DELETE}' WHEN l.{LIVE} THEN '{UPDATE}' ELSE '{INSERT}' END"


class Extraction:
    """What reading by the cursor and reconciling share; see `ChangeSource.changes`.

    Raises:
        SchemaDrift: the table is gone.
        CorruptPartition: the index of keys is gone.
    """

    def __init__(
        self, snapshot: Snapshot, settings: Settings, name: str, before: datetime,
        after: Position | None, upto: Position | None,
    ) -> None:  # fmt: skip
        self.snapshot, self.name, self.before, self.upto = snapshot, name, before, upto
        self.declared: Table = snapshot.shop.tables[name]
        self.cursor = cursor_of(self.declared)
        self.timed = self.declared.columns[self.cursor.column] == "timestamp"
        self.stored = self.declared.stored_columns()
        self.source = snapshot.table(name)
        self.column = self.source.c[self.cursor.column]
        after = after or {"ordinal": 0, "files": [], "high": None}
        self.ordinal = after["ordinal"] + 1
        self.index = KeyIndex(
            Lake(settings.lake, snapshot.shop.shop),
            name,
            pa.schema([(each, self.stored[each]) for each in self.declared.key]),
            pa.timestamp("us", "UTC") if self.timed else pa.int64(),
            after["files"],
            settings.threads,
        )
        self.index.require()
        seen = cursor_value(after)
        self.lower = None if seen is None else self._less_lag(seen)
        """From here on, rows are read."""
        self.high = self._highest(seen)
        self.at = utc(upto["at"]) if upto else snapshot.now()
        self._secret = key_for(settings, name, self.declared)
        self._forgotten = Forgotten.of(Installation(settings, snapshot.shop))
        self._rows = 0  # Changes so far; they are numbered from 1, up to 2^32.
        self._window = None if self.high is None else self._less_lag(self.high)
        # A change belongs to the interval although it was noticed after its end.
        self._noticed = min(self.at, before - TICK)

    @property
    def file(self) -> str:
        """The index's further file."""
        return f"{self.ordinal:08d}"

    @property
    def merges(self) -> bool:
        """Whether the index's files are merged."""
        return len(self.index.names) >= FILES

    @property
    def position(self) -> dict[str, Any]:
        """Where the next extraction goes on."""
        files = [f"{self.file}-all"] if self.merges else [*self.index.names, self.file]
        high = self.high.isoformat() if isinstance(self.high, datetime) else self.high
        return {
            "ordinal": self.ordinal, "high": high, "at": self.at.isoformat(), "files": files,
            "of": identity(self.declared),
        }  # fmt: skip

    def changes(self, engine: Any, condition: Any) -> Iterator[tuple[Any, Any]]:
        """Changes among the rows that fulfil a condition, each batch with its index entries."""
        order = [self.column, *(self.source.c[name] for name in self.declared.key)]
        for batch in self.stream(list(self.stored), condition, order):
            rows = self.lookup(batch)
            if self.index.names:
                version = versions(engine, batch)
            else:
                version = self._versions_in_window(engine, batch, rows.column(CURSOR))
            rows = rows.append_column(VERSION, version)
            places, ops = self._compare(engine, rows)
            if len(places) == batch.num_rows:
                yield self.numbered(batch, ops, rows)
            elif len(places):
                yield self.numbered(batch.take(places), ops, rows.take(places))

    def stream(self, names: list[str], condition: Any, order: Any = ()) -> Iterator[Any]:
        """Columns of the rows that fulfil a condition, pseudonyms in place, forgotten shoppers left
        out: they must not come into the index either.

        Raises:
            SchemaDrift: a row has no whole key.
        """
        wanted = pa.schema([(name, self.stored[name]) for name in names])
        for batch in self.snapshot.stream(self.source, condition, order, wanted):
            fits = batch.filter(batch.column(MISFITS).is_null())
            if any(fits.column(name).null_count for name in self.declared.key):
                raise SchemaDrift(
                    f"{self.name} has rows without a whole key ({', '.join(self.declared.key)}); "
                    f"name columns that are never null in `tables.{self.name}.key`"
                )
            arrays = [
                pseudonymise(array, self._secret) if name in self.declared.personal else array
                for name, array in zip(names, batch.columns, strict=False)
            ]
            whole = pa.record_batch([*arrays, batch.column(MISFITS)], schema=batch.schema)
            yield from self._forgotten.left_out(self.name, iter([whole]))

    def lookup(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What the index is asked with: key, place, cursor and whether the row is deleted."""
        deleted: Any = pa.repeat(pa.scalar(False), batch.num_rows)
        if self.cursor.deleted is not None:
            mark: Any = batch.column(self.cursor.deleted)
            deleted = (
                pc.fill_null(mark, False) if pa.types.is_boolean(mark.type) else mark.is_valid()
            )
        return (
            batch.select(self.declared.key)
            .append_column(ROW, pa.array(np.arange(batch.num_rows)))
            .append_column(CURSOR, self._cursor_in(batch))
            .append_column(DELETED, deleted)
        )

    def _cursor_in(self, batch: pa.RecordBatch) -> Any:
        """The cursor of each row; one from before Christ is the first there can be."""
        cursor: Any = batch.column(self.cursor.column).cast(self.index.cursor)
        return pc.fill_null(cursor, pa.scalar(FIRST, cursor.type)) if self.timed else cursor

    def numbered(self, rows: Any, ops: Any, index: Any) -> tuple[Any, Any]:
        """Changes with the columns of their own, and their entries in the index."""
        count = rows.num_rows
        place = (self.ordinal << 32) + self._rows + 1
        self._rows += count
        ordinal = pa.repeat(pa.scalar(self.ordinal, pa.int64()), count)
        committed = index.column(CURSOR) if self.timed else self.noticed(count)
        own = [ops, committed, pa.array(np.arange(place, place + count)), ordinal]
        live = pc.not_equal(ops, pa.scalar(DELETE))
        key = [rows.column(name) for name in self.declared.key]
        entries = [*key, index.column(CURSOR), index.column(VERSION), live, ordinal]
        index_rows = pa.record_batch(entries, schema=self.index.schema)
        for name in self.declared.key:  # Null where it did not fit: nothing is found by it.
            index_rows = index_rows.filter(index_rows.column(name).is_valid())
        return (
            pa.record_batch([*rows.columns, *own], schema=change_schema(self.declared)),
            index_rows,
        )

    def noticed(self, count: int) -> Any:
        """The time of this extraction, for changes that have none of their own."""
        return pa.repeat(pa.scalar(self._noticed, pa.timestamp("us", "UTC")), count)

    def due(self) -> Any:
        """The condition of the rows to read by their cursor."""
        parts = [sa.true()]
        if self.lower is not None:
            parts.append(self.column >= self.snapshot.moment(self.lower))
        if self.timed:
            parts.append(self.column < self.snapshot.moment(self.before))
        if self.upto is not None:
            parts.append(self._until())
        return sa.and_(*parts)

    def at_values(self, values: list[Any]) -> Any:
        """The condition of the rows whose cursor has one of some values."""
        if not self.timed:
            return self.column.in_(values)
        moment = self.snapshot.moment
        spans = [
            sa.and_(self.column >= moment(value), self.column < moment(value + TICK))
            for value in values
        ]
        return sa.or_(*spans)

    def _versions_in_window(self, engine: Any, batch: pa.RecordBatch, cursor: Any) -> Any:
        """Versions of the rows that will be read again; they come last."""
        again = pc.greater_equal(cursor, pa.scalar(self._window, cursor.type)).true_count
        once = batch.num_rows - again
        tail = versions(engine, batch.slice(once)) if again else pa.array([], pa.uint64())
        return pa.concat_arrays([pa.nulls(once, pa.uint64()), tail])

    def _compare(self, engine: Any, rows: pa.RecordBatch) -> tuple[Any, Any]:
        """Places of the rows that are changes, and their operations."""
        if not self.index.names:
            places = rows.column(ROW).filter(pc.invert(rows.column(DELETED)))
            return places, pa.repeat(pa.scalar(INSERT), len(places))
        engine.register("batch", rows)
        changed = engine.sql(
            f"SELECT r.{ROW}, {_OP} AS op FROM batch AS r LEFT JOIN "
            f"({self.index.latest('batch')}) AS l USING ({quoted(self.declared.key)}) "
            f"WHERE {IS_CHANGE.format(same=_SAME)} ORDER BY 1"
        ).to_arrow_table()
        return changed.column(ROW).combine_chunks(), changed.column("op").combine_chunks()

    def _until(self) -> Any:
        """What the extraction that ended at `upto` could see."""
        if isinstance(self.high, datetime):
            return self.column < self.snapshot.moment(self.high + TICK)
        return sa.false() if self.high is None else self.column <= self.high

    def _highest(self, seen: Any) -> Any:
        """The last cursor before the interval's end; it never goes back."""
        if self.upto is not None:
            return cursor_value(self.upto)
        query = sa.select(self.snapshot.selected(sa.func.max(self.column), self.index.cursor))
        if self.timed:
            moment = self.snapshot.moment
            query = query.where(self.column >= moment(FIRST), self.column < moment(self.before))
        highest = self.snapshot.connection.scalar(query)
        if highest is not None and self.timed:
            highest = utc(highest)
        return max((each for each in (seen, highest) if each is not None), default=None)

    def _less_lag(self, value: Any) -> Any:
        if not self.timed:
            return value - self.cursor.lag_numbers
        return max(value, utc("0001-02-01") + self.cursor.lag) - self.cursor.lag


def cursor_value(position: Position) -> Any:
    """The last cursor value of a position; None where it has none."""
    high = position.get("high")
    return utc(high) if isinstance(high, str) else high


def identity(table: Table) -> dict[str, Any]:
    """The columns that a position belongs to."""
    stored = table.stored_columns()
    key = {name: str(stored[name]) for name in table.key}
    return {"cursor": cursor_of(table).column, "key": key}
