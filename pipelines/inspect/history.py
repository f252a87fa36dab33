"""Time travel: the rows of a table at a time, folded from its changes in one pass."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.extract.stage import auto_added_columns
from pipelines.shared.columns import COMMITTED_AT, DELETE, EXPIRED, INTERVAL, OP, POSITION
from pipelines.shared.errors import CorruptPartition, Expired, NotExtracted
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Installation
from pipelines.shared.settings import Settings

BATCH = 100_000
"""Rows yielded at once."""

# Positions grow within an interval and, until capture is installed again, across intervals.
_FOLD = """
    WITH last AS (
        SELECT {key}, arg_max(changes, ({interval}, {position})) AS change
        FROM changes GROUP BY {key}
    )
    SELECT {columns} FROM last WHERE change.{op} <> '{delete}' ORDER BY {key} {limit}
"""


@contextmanager
def rows_at(
    installation: Installation, table: str, at: datetime, limit: int | None = None
) -> Iterator[pa.RecordBatchReader]:
    """The rows that a source table held at a time, sorted by key, as extraction saw them.

    At the end of an extracted interval these are the rows that were committed and visible when it
    was extracted. Inside an interval the changes' commit times decide, which is as exact as the
    source's are. Columns are the stored ones; columns added later are null before. The reader is to
    be read inside the block; beyond the settings' memory DuckDB spills to disk.

    Raises:
        DeclarationError: the table is not declared.
        NotExtracted: the time lies before capture began or after the last extracted interval.
        Expired: changes before the time were removed by the declared retention.
        CorruptPartition: a file is damaged or missing.
    """
    installation.shop.require_table(table)
    known = installation.ledger.manifests("extract", table)
    steps = _steps(known, table, at)
    keys = pa.array([step.interval.key for step in steps], pa.string())
    moment = pa.scalar(at, pa.timestamp("us", tz="UTC"))
    further = auto_added_columns(known[-1:])
    declared = installation.shop.with_columns(further).tables[table].stored_columns()
    dataset = installation.lake.dataset(f"changes/{table}")
    with _engine(installation.settings) as engine:
        names = [name for name in declared if name in dataset.schema.names]
        wanted = pc.field(INTERVAL).isin(keys) & (pc.field(COMMITTED_AT) < moment)
        scanned = dataset.scanner(columns=[*names, OP, POSITION, INTERVAL], filter=wanted)
        engine.register("changes", scanned)
        query = _FOLD.format(
            key=", ".join(map(_quoted, installation.shop.tables[table].key)),
            interval=INTERVAL, position=POSITION, op=OP, delete=DELETE,
            columns=", ".join(f"change.{_quoted(name)} AS {_quoted(name)}" for name in names),
            limit="" if limit is None else f"LIMIT {limit:d}",
        )  # fmt: skip
        schema = pa.schema([(name, declared[name]) for name in names])
        batches = _folded(engine, query, schema, installation, table)
        yield pa.RecordBatchReader.from_batches(schema, batches)


def _steps(known: list[Manifest], table: str, at: datetime) -> list[Manifest]:
    """The intervals whose partitions hold what was committed before a time.

    The changes of an interval that was left out lie in the next one that was extracted.
    """
    last = next((each for each in known if each.position and each.interval.end >= at), None)
    if last is None or at <= known[0].interval.start:
        extent = (
            f"from {known[0].interval.start:%FT%TZ} to {known[-1].interval.end:%FT%TZ}"
            if known
            else "not at all yet"
        )
        raise NotExtracted(
            f"what {table} held at {at:%FT%TZ} is not known: it was extracted {extent}; choose a "
            "time in between, or extract further (`python -m pipelines run`)"
        )
    steps = [each for each in known if each.interval <= last.interval]
    if expired := [each for each in steps if EXPIRED in each.details and each.counts["rows"]]:
        raise Expired(
            f"what {table} held at {at:%FT%TZ} is no longer known: its changes up to "
            f"{expired[-1].interval.end:%FT%TZ} were removed by `retention.changes_days`; restore "
            "the partitions from a backup of the lake, or keep changes longer"
        )
    return steps


@contextmanager
def _engine(settings: Settings) -> Iterator[Any]:
    import duckdb

    with tempfile.TemporaryDirectory(prefix="freshrank-") as spill:
        config = {
            "threads": settings.threads,
            "memory_limit": settings.memory_limit,
            "temp_directory": spill,
        }
        with duckdb.connect(config=config) as engine:
            engine.execute("SET TimeZone = 'UTC'")
            yield engine


def _folded(
    engine: Any, query: str, schema: pa.Schema, installation: Installation, table: str
) -> Iterator[pa.RecordBatch]:
    import duckdb

    try:
        for batch in engine.sql(query).to_arrow_reader(BATCH):
            columns = [pc.cast(batch.column(field.name), field.type) for field in schema]
            yield pa.record_batch(columns, schema=schema)
    except (pa.ArrowInvalid, OSError, duckdb.Error) as error:
        raise CorruptPartition(
            f"changes/{table} cannot be read ({str(error).strip()[:300]}); "
            f"`python -m pipelines verify --shop {installation.shop.shop} --table {table}` says "
            "which partition and what to do"
        ) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
