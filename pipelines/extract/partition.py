"""One step's partition of `changes/<table>`: written, and read from the source again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.extract.lag import CommitTimes
from pipelines.extract.position import position_before
from pipelines.extract.source import ChangeBatch, ChangeSource
from pipelines.shared.columns import COMMITTED_AT, DELETE, INSERT, MISFITS, OP, UPDATE
from pipelines.shared.declaration import Table
from pipelines.shared.errors import CorruptPartition, SchemaDrift
from pipelines.shared.forgotten import Forgotten
from pipelines.shared.hashing import ContentHash
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run

_EXAMPLES = 3


@dataclass(frozen=True)
class StepPartition:
    """The changes of one table and one step of a run."""

    run: Run
    table: str
    source: ChangeSource
    interval: Interval

    @property
    def name(self) -> str:
        """The lake's table."""
        return f"changes/{self.table}"

    @property
    def declared(self) -> Table:
        """The table's declaration."""
        return self.run.shop.tables[self.table]

    def require_types(self) -> None:
        """Make sure that no stored column is of another type than the lake has it in.

        Raises:
            SchemaDrift: one is.
        """
        if not self.run.lake.exists(self.name):
            return
        held = self.run.lake.dataset(self.name).schema
        for name, kind in self.declared.stored_columns().items():
            if name in held.names and held.field(name).type != kind:
                raise SchemaDrift(
                    f"{self.table}.{name} is {held.field(name).type} in the lake, but declared so "
                    f"that it is {kind} now; declare it in shops/{self.run.shop.shop}/shop.yaml as "
                    "it was, or start afresh with an empty lake and ledger of this shop"
                )

    def write(self, changes: ChangeBatch) -> Written:
        """Replace the partition by changes, less those of forgotten shoppers."""
        written = Written(changes.schema, self.interval)
        kept = Forgotten.of(self.run).left_out(self.table, changes.batches)
        rows = pa.RecordBatchReader.from_batches(changes.schema, written.through(kept))
        self.run.lake.replace(self.name, self.interval, rows)
        return written

    def rows_held(self) -> int | None:
        """Rows in the partition, all of them read; None where a file is damaged or missing."""
        if not self.run.lake.exists(self.name):
            return 0
        try:
            return self.run.lake.count(self.name, self.interval)
        except CorruptPartition:
            return None

    def reread(self, done: Manifest, known: list[Manifest], names: list[str]) -> Written:
        """Replace the partition by what the source gives, if it is what it gave before.

        `names` are the columns to store beside the misfits, among them those stored before.

        Raises:
            CorruptPartition: it gives something else; nothing was replaced.
        """
        after = position_before(known, self.interval)
        with tempfile.TemporaryFile(prefix="freshrank-") as spool:
            with self.source.changes(
                self.table, self.interval.end, after, done.position
            ) as changes:
                names = [*(name for name in names if name != MISFITS), MISFITS]
                before = self._selected(changes.schema, done.details["columns"])
                written = Written(self._selected(changes.schema, names), self.interval)
                same = ContentHash(before)
                with pa.ipc.new_stream(spool, written.schema) as writer:
                    for batch in Forgotten.of(self.run).left_out(self.table, changes.batches):
                        same.add(batch.select(before.names))
                        for piece in written.through(iter([batch.select(names)])):
                            writer.write_batch(piece)
            if same.hexdigest() != done.content_hash:
                raise CorruptPartition(
                    f"the source gives {written.counts['rows']} changes for it now that are not "
                    f"the {done.counts['rows']} on record; bring the partition back from a backup "
                    "of the lake"
                )
            spool.seek(0)
            self.run.lake.replace(self.name, self.interval, pa.ipc.open_stream(spool))
        return written

    def _selected(self, schema: pa.Schema, names: list[str]) -> pa.Schema:
        if gone := [name for name in names if name not in schema.names]:
            raise CorruptPartition(
                f"it was extracted with {', '.join(gone)}, which shops/{self.run.shop.shop}/"
                "shop.yaml no longer has; declare it until the partition is there again"
            )
        return pa.schema([schema.field(name) for name in names])


class Written:
    """Counts and hashes the changes that pass through on their way into the lake."""

    def __init__(self, schema: pa.Schema, interval: Interval) -> None:
        self.schema = schema
        self.columns = [name for name in schema.names if name != MISFITS]
        """Those that are hashed: partitions without misfits keep the hash that they always had."""
        self.hash = ContentHash(pa.schema([schema.field(name) for name in self.columns]))
        self.counts = {"rows": 0, INSERT: 0, UPDATE: 0, DELETE: 0}
        self.committed = CommitTimes()
        self.bytes = 0
        """As Arrow holds them, before Parquet compresses them."""
        self.late = 0
        """Changes that were committed before the interval began."""
        self.misfits = 0
        """Changes with a value that its declared type cannot hold,"""
        self.examples: list[str] = []
        """and a few of them, in words."""
        self._start = pa.scalar(interval.start, pa.timestamp("us", tz="UTC"))

    def through(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, each counted and hashed."""
        for batch in batches:
            self.hash.add(batch.select(self.columns))
            self.counts["rows"] += batch.num_rows
            for op in (INSERT, UPDATE, DELETE):
                self.counts[op] += pc.equal(batch.column(OP), pa.scalar(op)).true_count
            self.bytes += batch.nbytes
            self.committed.add(batch.column(COMMITTED_AT))
            self._count_misfits(batch)
            self.late += pc.less(batch.column(COMMITTED_AT), self._start).true_count
            yield batch

    def _count_misfits(self, batch: pa.RecordBatch) -> None:
        if MISFITS in batch.schema.names:
            misfits = batch.column(MISFITS).drop_null()
            self.misfits += len(misfits)
            self.examples += map(str, misfits[: _EXAMPLES - len(self.examples)])
