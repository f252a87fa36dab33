"""The stage: one table's changes of each step of a run, into the lake and onto the record.

The rows are durable before the manifest that moves the source position is recorded. A run that
dies in between leaves a partition without a manifest: nobody reads it, the rerun replaces it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.extract.source import ChangeSource, Position, Taken, change_schema
from pipelines.extract.trigger import TriggerSource
from pipelines.shared.columns import COMMITTED_AT, DELETE, INSERT, OP, UPDATE
from pipelines.shared.errors import CorruptPartition, DeclarationError
from pipelines.shared.hashing import ContentHash
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run

STAGE = "extract"


@dataclass(frozen=True)
class Extracted:
    """What one run extracted of one table; `steps` are the keys of its partitions."""

    table: str
    start: str
    end: str
    rows: int
    inserts: int
    updates: int
    deletes: int
    steps: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return asdict(self) | {"steps": list(self.steps)}


def run(run: Run, table: str) -> Extracted:
    """Bring the changes of a table that are due by the end of each step into `changes/<table>`.

    A step that is on record is not read again: its partition is checked, and restored from the
    source if it is gone.

    Args:
        run: the interval of a shop.
        table: one of its declared tables.

    Raises:
        DeclarationError: the table is not declared.
        SchemaDrift, CaptureMissing, SettingsError, SourceUnavailable: see `ChangeSource`.
        CorruptPartition: a partition does not hold what its manifest says.
        LedgerUnavailable: the ledger does not answer.
    """
    return extract(run, table, TriggerSource(run.source_url, run.shop, run.settings))


def clock(run: Run) -> datetime:
    """The time in the shop, in UTC.

    Raises:
        SourceUnavailable: its database does not answer.
    """
    return TriggerSource(run.source_url, run.shop, run.settings).clock()


def extract(run: Run, table: str, source: ChangeSource) -> Extracted:
    """The same as `run`, from any source."""
    if table not in run.shop.tables:
        raise DeclarationError(
            f"table {table!r} is not declared in shops/{run.shop.shop}/shop.yaml; "
            f"declared: {', '.join(run.shop.tables)}"
        )
    steps = [_Step(run, table, source, interval).manifest() for interval in run.steps]
    counts = Counter[str]()
    for manifest in steps:
        counts.update(manifest.counts)
    return Extracted(
        table=table,
        start=run.interval.start.isoformat(),
        end=run.interval.end.isoformat(),
        rows=counts["rows"],
        inserts=counts[INSERT],
        updates=counts[UPDATE],
        deletes=counts[DELETE],
        steps=tuple(step.key for step in run.steps),
        seconds=round(sum(manifest.seconds for manifest in steps), 3),
    )


@dataclass(frozen=True)
class _Step:
    run: Run
    table: str
    source: ChangeSource
    interval: Interval

    @property
    def partition(self) -> str:
        return f"changes/{self.table}"

    def manifest(self) -> Manifest:
        """The step's manifest, made now unless it is on record."""
        with self.run.ledger.lock(f"{STAGE}/{self.table}") as held:
            known = self.run.ledger.manifests(STAGE, self.table)
            done = next((each for each in known if each.interval == self.interval), None)
            if done is not None:
                self._verify(done, known)
                return done
            later = [each for each in known if each.interval.end >= self.interval.end]
            taken_by = next((each for each in later if each.position), None)
            made = self._yield_to(taken_by) if taken_by else self._take(known)
            self.run.ledger.record(made, held)
            return made

    def _take(self, known: list[Manifest]) -> Manifest:
        began = time.monotonic()
        self.source.check(self.table)
        with self.source.changes(
            self.table, self.interval.end, _position_before(known, self.interval)
        ) as taken:
            written = self._write(taken)
        return Manifest(
            STAGE, self.table, self.interval, written.counts, written.hash.hexdigest(),
            position=taken.position, details={"late": written.late},
            seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip

    def _yield_to(self, later: Manifest) -> Manifest:
        """An interval that is asked for after a later one, which took its changes."""
        written = self._write(Taken({}, change_schema(self.run.shop.tables[self.table]), iter(())))
        return Manifest(
            STAGE, self.table, self.interval, written.counts, written.hash.hexdigest(),
            details={"taken_by": later.interval.key},
        )  # fmt: skip

    def _write(self, taken: Taken) -> _Written:
        written = _Written(taken.schema, self.interval)
        rows = pa.RecordBatchReader.from_batches(taken.schema, written.through(taken.batches))
        self.run.lake.replace(self.partition, self.interval, rows)
        return written

    def _verify(self, done: Manifest, known: list[Manifest]) -> None:
        """Make sure that the partition is what its manifest says; restore one that is lost."""
        expected = done.counts["rows"]
        held = self._held()
        if held == expected:
            return
        if not held and done.position:
            self._restore(done, known)
            return
        raise CorruptPartition(
            f"{self.run.lake.uri(self.partition)}, partition {self.interval.key}: holds {held} "
            f"rows, its manifest says {expected}; delete the partition and rerun the interval's "
            "extraction, which restores it from the source"
        )

    def _held(self) -> int | None:
        """Rows in the partition, all of them read; None where a file is damaged or missing."""
        if not self.run.lake.exists(self.partition):
            return 0
        try:
            return self.run.lake.read(self.partition, [self.interval]).num_rows
        except CorruptPartition:
            return None

    def _restore(self, done: Manifest, known: list[Manifest]) -> None:
        after: Position | None = _position_before(known, self.interval)
        with self.source.changes(self.table, self.interval.end, after, done.position) as taken:
            written = self._write(taken)
        if written.hash.hexdigest() != done.content_hash:
            self._write(Taken({}, taken.schema, iter(())))
            raise CorruptPartition(
                f"{self.run.lake.uri(self.partition)}, partition {self.interval.key} is lost, and "
                f"the source does not give the same {done.counts['rows']} changes again; bring "
                "the partition back from a backup of the lake"
            )


class _Written:
    """Counts and hashes the changes that pass through on their way into the lake."""

    def __init__(self, schema: pa.Schema, interval: Interval) -> None:
        self.hash = ContentHash(schema)
        self.counts = {"rows": 0, INSERT: 0, UPDATE: 0, DELETE: 0}
        self.late = 0
        """Changes that were committed before the interval began."""
        self._start = pa.scalar(interval.start, pa.timestamp("us", tz="UTC"))

    def through(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.hash.add(batch)
            self.counts["rows"] += batch.num_rows
            for op in (INSERT, UPDATE, DELETE):
                self.counts[op] += pc.equal(batch.column(OP), pa.scalar(op)).true_count
            self.late += pc.less(batch.column(COMMITTED_AT), self._start).true_count
            yield batch


def _position_before(known: list[Manifest], interval: Interval) -> Position | None:
    """The position from which an interval goes on: that of the last one extracted before it."""
    before = [each for each in known if each.position and each.interval.end < interval.end]
    return before[-1].position if before else None
