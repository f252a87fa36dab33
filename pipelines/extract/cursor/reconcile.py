"""Finds what no cursor shows: rows that came behind the lag, and keys that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from pipelines.extract.cursor.extraction import DELETED, IS_CHANGE, ROW, Extraction
from pipelines.extract.cursor.key_index import CURSOR, LIVE, VERSION, quoted
from pipelines.shared.columns import DELETE, MISFITS

_AT_ONCE = 200
"""Cursor values asked for in one query."""


def reconcile(extraction: Extraction, engine: Any, file: Path) -> Iterator[tuple[Any, Any]]:
    """Compare every key of the table with the index; yields what `Extraction.changes` does.

    The keys are written to a file in between, so that memory does not hold them.
    """
    _write_keys(extraction, file)
    engine.read_parquet(str(file)).create_view("present", replace=True)
    key = quoted(extraction.declared.key)
    latest = extraction.index.latest()
    missed = engine.sql(
        f"SELECT DISTINCT r.{CURSOR} FROM present AS r LEFT JOIN ({latest}) AS l USING ({key}) "
        f"WHERE r.{CURSOR} < $1 AND {IS_CHANGE.format(same='true')} ORDER BY 1",
        params=[extraction.lower],
    ).to_arrow_table()
    values = missed.column(CURSOR).to_pylist()
    for start in range(0, len(values), _AT_ONCE):
        condition = extraction.at_values(values[start : start + _AT_ONCE])
        yield from extraction.changes(engine, condition)
    gone = engine.sql(
        f"SELECT {key} FROM ({latest}) AS l ANTI JOIN present USING ({key}) "
        f"WHERE {LIVE} ORDER BY ALL"
    )
    for keys in gone.to_arrow_reader(20_000):
        yield _deletes(extraction, keys)


def _write_keys(extraction: Extraction, file: Path) -> None:
    cursor, index = extraction.cursor, extraction.index
    marks = [cursor.column, *([cursor.deleted] if cursor.deleted else [])]
    shoppers = extraction.snapshot.shop.shopper_columns.get(extraction.name, ())
    names = list(dict.fromkeys([*extraction.declared.key, *marks, *shoppers]))
    own = [(ROW, pa.int64()), (CURSOR, index.cursor), (DELETED, pa.bool_())]
    schema = pa.schema([*index.key, *own])
    with pq.ParquetWriter(file, schema) as writer:
        for batch in extraction.stream(names, sa.true()):
            writer.write_batch(extraction.lookup(batch).cast(schema))


def _deletes(extraction: Extraction, keys: pa.RecordBatch) -> tuple[Any, Any]:
    """Deletes of rows of which only the key is known."""
    count, stored = keys.num_rows, extraction.stored
    missing: Any = pa.nulls
    columns = [
        keys.column(name).cast(kind) if name in extraction.declared.key else missing(count, kind)
        for name, kind in stored.items()
    ]
    schema = pa.schema([*stored.items(), (MISFITS, pa.string())])
    rows = pa.record_batch([*columns, missing(count, pa.string())], schema=schema)
    cursor = extraction.noticed(count) if extraction.timed else pa.nulls(count, pa.int64())
    index = pa.record_batch({CURSOR: cursor, VERSION: pa.nulls(count, pa.uint64())})
    return extraction.numbered(rows, pa.repeat(pa.scalar(DELETE), count), index)
