"""The first extraction of a table from the log: the rows that it held at the interval's end.

It reads the rows present in one snapshot, undoes what the log says was committed after that
end and is in the snapshot, and adds what was committed before that end and is not: so the
hand-over to the log has neither gap nor overlap, however busy the writers.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from pipelines.extract.databases.postgres.copy import copied, read_csv
from pipelines.extract.databases.values import without
from pipelines.extract.source import microseconds
from pipelines.extract.wal.extraction import Extraction
from pipelines.extract.wal.pgoutput import Ints, Rows, Transactions
from pipelines.shared.columns import DELETE, INSERT


def snapshot(extraction: Extraction) -> Generator[pa.RecordBatch, None, None]:
    """Every row of the table as it was at the interval's end.

    Raises:
        CaptureMissing: the table was truncated since.
        SourceUnavailable: the server's clock has not reached the interval's end.
    """
    plain, key, names = extraction.plain, extraction.declared.key, extraction.names
    plain.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    now = "SELECT pg_current_snapshot()::text, pg_current_xact_id()::text::bigint"
    source = sql.Identifier(extraction.shop.source.schema_name, extraction.table)
    with plain.transaction():
        # A snapshot does not protect from TRUNCATE, which empties the table for all of them.
        plain.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(source))
        seen, xid = plain.execute(now).fetchone()
        extraction.mark()
        extraction.place = max(extraction.place, extraction.end)
        stop, undone, missed = _since(extraction, seen)
        began = datetime.fromisoformat(str(extraction.log.began))
        stamp = (0, microseconds(began), xid)
        absent = undone.select(key) if undone is not None else None
        query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)")
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        for lines in copied(plain, query.format(columns, source), binary=False):
            rows = read_csv(lines, names)
            rows = rows if absent is None else without(rows, absent)
            yield from extraction.batches(_inserts(rows, stamp), full_ids=True)
        if undone is not None:
            rows = undone.filter(undone["_there"]).select(names)
            yield from extraction.batches(_inserts(rows, stamp), full_ids=True)
        for changes in missed:
            yield from extraction.batches(changes)
    extraction.finish(stop)


def _since(extraction: Extraction, snapshot: str) -> tuple[int, pa.Table | None, list[Rows]]:
    """How the state at the interval's end differs from a snapshot.

    Returns the end's place in the log; of each key that was changed after it, the row at
    that time (`_there`: whether there was one); changes from before it that were not seen.
    """
    names, key = extraction.names, extraction.declared.key
    stop: int | None = None
    undone, missed = [], []
    for chunk in extraction.chunks():
        stop = extraction.stop(chunk.begun, 0) if stop is None else stop
        lsn = chunk.transactions.lsn
        early = np.ones(len(lsn), bool) if stop is None else lsn < stop
        seen = _visible(snapshot, extraction.full_ids(chunk.transactions.xid))
        if stop is not None:
            extraction.refuse_truncate(chunk, stop, None)
        rows = chunk.rows(early & ~seen, names, key)
        if len(rows.op):
            missed.append(rows)
        images = chunk.rows(~early & seen, names, key, images=True)
        if len(images.op):
            there = pc.equal(images.op, pa.scalar(DELETE))
            undone.append(pa.table({**images.columns, "_there": there}))
    stop = extraction.at_end() if stop is None else stop
    return stop, _first(undone, key), missed


def _inserts(rows: pa.Table, stamp: tuple[int, int, int]) -> Rows:
    """Rows as inserts of one transaction, given its place, commit time and id."""
    columns = {name: rows[name].combine_chunks() for name in rows.column_names}
    full = (np.full(rows.num_rows, value, np.int64) for value in stamp)
    return Rows(columns, pa.repeat(pa.scalar(INSERT), rows.num_rows), Transactions(*full))


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
