"""Reads changed rows from any SQLAlchemy database by a cursor column, with SELECT alone.

An extraction reads, in one read-only snapshot, every row whose cursor lies at or after the last
one seen less the lag, and drops those that are as they were extracted before: the same key, cursor
and content. These stand in an index of keys (`key_index`), files that the position names. So a row
that was committed late, or shares its cursor with one already extracted, is found as long as its
cursor lies within the lag. What lies behind it, and rows that are gone, only `reconcile` finds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from pipelines.extract.cursor.check import cursor_of, faults, unfit_cursor
from pipelines.extract.cursor.extraction import TICK, Extraction, cursor_value, identity
from pipelines.extract.cursor.reconcile import reconcile
from pipelines.extract.cursor.snapshot import open_snapshot
from pipelines.extract.source import (
    AHEAD,
    NAMED,
    ChangeBatch,
    DatabaseSource,
    Position,
    StampedAhead,
    change_schema,
)
from pipelines.shared.declaration import Shop, Table
from pipelines.shared.errors import SchemaDrift


class CursorSource(DatabaseSource):
    """Rows found by their cursor column; see `docs/adr/0009-cursor-needs-an-index-of-keys.md`."""

    def clock(self) -> datetime:
        """The database's clock, in UTC."""
        with open_snapshot(self._url, self._shop) as snapshot:
            return snapshot.now()

    def check(self, table: str) -> None:
        """See `ChangeSource.check`."""
        self._key(table)
        with open_snapshot(self._url, self._shop) as snapshot:
            if wrong := faults(snapshot, table):
                raise SchemaDrift("; ".join(wrong))

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[ChangeBatch]:
        """See `ChangeSource.changes`.

        With `upto` the rows are what they are now: only where none changed since is the answer
        the same, which the caller has to check.

        Raises:
            SchemaDrift: a cursor is null; or the key or cursor is declared otherwise than at
                `after`.
            CaptureMissing: `after` was given by another capture mode.
            CorruptPartition: the index of keys is gone.
        """
        declared = self._shop.tables[table]
        with open_snapshot(self._url, self._shop) as snapshot:
            if wrong := unfit_cursor(snapshot, table):
                raise SchemaDrift("; ".join(wrong))
            _require_same(table, declared, after)
            extraction = Extraction(snapshot, self._settings, table, before, after, upto)
            batches = _batches(extraction)
            try:
                yield ChangeBatch(extraction.position, change_schema(declared), batches)
            finally:
                batches.close()


def pending(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """How many rows of each table lie beyond the last cursor value extracted.

    Raises:
        SchemaDrift: a table is gone.
        SourceUnavailable: the database does not answer.
    """
    counts = {}
    with open_snapshot(url, shop) as snapshot:
        for name, table in shop.tables.items():
            source = snapshot.table(name)
            query = sa.select(sa.func.count()).select_from(source)
            high = cursor_value(positions.get(name, {}))
            if high is not None:
                beyond = high + (TICK if isinstance(high, datetime) else 1)
                column = source.c[cursor_of(table).column]
                query = query.where(column >= snapshot.moment(beyond))
            counts[name] = int(snapshot.connection.scalar(query) or 0)
    return counts


def ahead(url: str, shop: Shop) -> list[StampedAhead]:
    """Rows whose cursor is a time in the far future; see `Mode.ahead`."""
    found = []
    with open_snapshot(url, shop) as snapshot:
        end = snapshot.now() + AHEAD
        for name, table in sorted(shop.tables.items()):
            cursor = cursor_of(table).column
            if table.columns[cursor] != "timestamp":
                continue
            source = snapshot.table(name)
            shown = [sa.cast(source.c[each], sa.String(255)) for each in (*table.key, cursor)]
            query = sa.select(*shown).where(source.c[cursor] > snapshot.moment(end))
            rows = snapshot.connection.execute(query.order_by(source.c[cursor]).limit(NAMED))
            found += [StampedAhead.of(shop, name, key, at) for *key, at in rows]
    return found


def _batches(extraction: Extraction) -> Generator[pa.RecordBatch, None, None]:
    """The changes; the index is durable when the last one was read."""
    index = extraction.index
    with index.engine() as engine:
        if extraction.upto is not None:
            for rows, _ in _changes(extraction, engine):
                yield rows
            return
        index.tidy(extraction.ordinal - 1)
        with index.writer(extraction.file) as writer:
            for rows, entries in _changes(extraction, engine):
                writer.write_batch(entries)
                yield rows
    if extraction.merges:
        index.merge(extraction.file, f"{extraction.file}-all")


def _changes(extraction: Extraction, engine: Any) -> Iterator[tuple[Any, Any]]:
    yield from extraction.changes(engine, extraction.due())
    if extraction.cursor.reconcile and extraction.index.names and extraction.lower is not None:
        with tempfile.TemporaryDirectory(prefix="freshrank-") as folder:
            yield from reconcile(extraction, engine, Path(folder) / "keys.parquet")


def _require_same(name: str, table: Table, after: Position | None) -> None:
    """Make sure that a position is one of this capture mode, key and cursor."""
    if after is None:
        return
    if "ordinal" not in after:
        raise DatabaseSource.from_another_mode(name)
    if after["of"] != identity(table):
        raise SchemaDrift(
            f"{name} is declared with other key or cursor columns than it was extracted with "
            f"({after['of']}); declare these again, or start afresh with an empty lake and ledger "
            "of this shop"
        )
