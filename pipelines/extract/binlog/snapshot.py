"""The first extraction of a table from the binlog: the table as it was at the interval's stop.

It is a consistent snapshot of now, in which every row that was changed since the stop is put back
to the image it had before its first change. So nothing of the next interval is in it, and the log
goes on from the stop without gap or overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.extract.binlog.extraction import Extraction, Row
from pipelines.extract.binlog.stream import HEADER, Begin, Place, created, log_end, log_files
from pipelines.extract.databases.mysql.connection import is_mariadb, translate_errors
from pipelines.extract.databases.mysql.values import selected
from pipelines.extract.databases.values import without
from pipelines.extract.source import BATCH, FIRST_BATCH, rows_to_fetch
from pipelines.shared.columns import INSERT, MISFITS
from pipelines.shared.errors import CaptureMissing


def snapshot(extraction: Extraction, before: datetime) -> Iterator[pa.RecordBatch]:
    """Every row of the table as it was at the stop of an interval that ends at `before`.

    Raises:
        CaptureMissing: the log does not reach back to `before`.
    """
    start = _file_at(extraction, before)
    end = _begin(extraction.connection)
    log = extraction.log(start)
    log.strict = False  # Until the stop, the snapshot has every row whatever the log says.
    stop, gtid = None, ""
    originals: dict[Row, Row | None] = {}
    for event in log.events(end):
        if isinstance(event, Begin):
            if stop is None and event.at >= before:
                stop, log.strict = event.place, True
            gtid = gtid if stop else event.gtid
        elif stop is not None:
            _remember(extraction, event, originals)
    stop = stop or end
    extraction.reached(stop, gtid)
    return _batches(extraction, originals, Begin(stop, before - timedelta(microseconds=1), gtid))


def _remember(extraction: Extraction, event: Any, originals: dict[Row, Row | None]) -> None:
    """Keep, by key, the row before its first change since the stop; None where it came then."""
    for before, after in extraction.images(event):
        if before is not None:
            originals.setdefault(extraction.key_of(before), before)
        if after is not None:
            originals.setdefault(extraction.key_of(after), None)


def _batches(
    extraction: Extraction, originals: dict[Row, Row | None], at: Begin
) -> Iterator[pa.RecordBatch]:
    """The rows that were changed since the stop, then all others."""
    changed = [row for row in originals.values() if row is not None]
    for begin in range(0, len(changed), BATCH):
        yield _inserts(extraction, extraction.arrays(changed[begin : begin + BATCH]), at)
    keys = _keys(extraction, list(originals))
    source = f"`{extraction.shop.source.schema_name}`.`{extraction.table}`"
    # Never closed: that would read what is left, also from a connection that was cut.
    cursor = extraction.connection.cursor()
    with translate_errors(extraction.url, "binlog"):
        cursor.execute(f"SELECT {selected(extraction.declared, extraction.columns)} FROM {source}")
        count = FIRST_BATCH
        while rows := cursor.fetchmany(count):
            arrays = extraction.arrays(rows)
            count = rows_to_fetch(len(rows), sum(each.nbytes for each in arrays))
            batch = _inserts(extraction, _without(extraction, arrays, keys), at)
            if batch.num_rows:
                yield batch


def _inserts(extraction: Extraction, arrays: list[Any], at: Begin) -> pa.RecordBatch:
    """Rows of a snapshot as inserts; their commit time is the declared column, if there is one."""
    count = len(arrays[0])
    stamp = pa.scalar(at.at, pa.timestamp("us", tz="UTC"))
    times = pa.repeat(stamp, count)
    if extraction.declared.commit_time in extraction.stored:
        own = arrays[extraction.stored.index(extraction.declared.commit_time)]
        times = pc.min_element_wise(own, stamp)
    return extraction.batch(
        arrays, pa.repeat(INSERT, count), times, pa.repeat(at.place.as_int, count)
    )


def _without(extraction: Extraction, arrays: list[Any], keys: pa.Table) -> list[Any]:
    """The rows less those of some keys, in their order."""
    if not keys.num_rows:
        return arrays
    kept = without(pa.table(arrays, names=[*extraction.stored, MISFITS]), keys)
    return [column.combine_chunks() for column in kept.columns]


def _keys(extraction: Extraction, keys: list[Row]) -> pa.Table:
    """Keys as a table, in the types that the snapshot has them in."""
    rows = []
    for key in keys:
        values = dict(zip(extraction.declared.key, key, strict=True))
        rows.append(tuple(map(values.get, extraction.stored)))
    table = pa.table(extraction.arrays(rows), names=[*extraction.stored, MISFITS])
    return table.select(extraction.declared.key)


def _begin(connection: Any) -> Place:
    """Begin a consistent snapshot; returns its place in the log."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        if is_mariadb(connection):
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            cursor.execute("SHOW STATUS LIKE 'binlog_snapshot_%'")
            status = {str(name).lower(): value for name, value in cursor.fetchall()}
            return Place(status["binlog_snapshot_file"], int(status["binlog_snapshot_position"]))
        # MySQL does not tell the place of a snapshot: nobody may write between the two.
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        place = log_end(connection)
        cursor.execute("UNLOCK TABLES")
        return place


def _file_at(extraction: Extraction, before: datetime) -> Place:
    """The beginning of the last log file that was begun in a second before a time."""
    for file in reversed(log_files(extraction.connection)):
        begun = created(extraction.url, file)
        if begun < before:
            return Place(file, HEADER)
    raise CaptureMissing(
        f"the binlog begins at {begun.isoformat()}, so {extraction.table} cannot be read as it "
        f"was at {before.isoformat()}; the first interval that can be extracted is "
        f"{extraction.shop.grid.step_of(begun)}"
    )
