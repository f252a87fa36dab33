"""The stage: one table's changes of each step of a run, into the lake and onto the record.

The rows are durable before the manifest that moves the source position is recorded. A run that
dies in between leaves a partition without a manifest: nobody reads it, the rerun replaces it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.extract.lag import CommitTimes
from pipelines.extract.modes import as_found, mode
from pipelines.extract.source import ChangeSource, Position, Taken, change_schema
from pipelines.shared.columns import AUTO_ADDED, COMMITTED_AT, DELETE, EXPIRED, INSERT, OP, UPDATE
from pipelines.shared.declaration import Table
from pipelines.shared.errors import (
    CaptureMissing,
    CorruptPartition,
    Expired,
    NotExtracted,
    SchemaDrift,
    SourceMovedOn,
    SourceUnavailable,
)
from pipelines.shared.hashing import ContentHash
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Ledger, Manifest
from pipelines.shared.run import Run

STAGE = "extract"
_log = logging.getLogger(__name__)


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
        Expired: the partition was removed by the declared retention.
        LedgerUnavailable: the ledger does not answer.
    """
    run.shop.require_table(table)
    known = {each.interval for each in run.ledger.manifests(STAGE, table)}
    run, source = _opened(run, table, ask=not known.issuperset(run.steps))
    extracted = extract(run, table, source)
    part = run.shop.part(run.shop.source_of(table))
    url = run.settings.connection(part.source.connection)
    captured = mode(url, part)
    if captured.release:
        captured.release(url, part, positions(run.ledger))
    return extracted


def again(run: Run, table: str) -> Extracted:
    """Read the changes of every step, which are on record, from the source once more.

    What is stored stays until the source has given all of it again: the same changes, which may
    have columns that are declared since. Then the partition is replaced.

    Raises:
        NotExtracted: a step is not on record.
        SourceMovedOn: the source can no longer give the same changes; nothing was touched.
        DeclarationError, SchemaDrift, SettingsError, SourceUnavailable, LedgerUnavailable: see
            `run`.
    """
    run.shop.require_table(table)
    run, source = _opened(run, table, ask=True)
    return _summed(run, table, [_Step(run, table, source, each).again() for each in run.steps])


def _opened(run: Run, table: str, *, ask: bool) -> tuple[Run, ChangeSource]:
    """A table's source, and the run with the columns that are to be taken.

    Args:
        ask: look for new ones at the source; else those taken before are all.
    """
    part = run.shop.part(run.shop.source_of(table))
    url = run.settings.connection(part.source.connection)
    before = taken(run.ledger.manifests(STAGE, table)[-1:])
    part = as_found(url, part, before) if ask else part.with_columns(before)
    tables = {**run.shop.tables, table: part.tables[table]}
    run = replace(run, shop=run.shop.model_copy(update={"tables": tables}))
    return run, mode(url, part).source(url, part, run.settings)


def taken(last: Iterable[Manifest]) -> dict[str, dict[str, str]]:
    """Table → column → type of the columns that were taken undeclared, by last manifests."""
    return {each.subject: each.details.get(AUTO_ADDED, {}) for each in last}


def clock(run: Run) -> datetime:
    """The time in the shop, in UTC: the earliest of its sources' clocks, of those that answer.

    Raises:
        SourceUnavailable: no source answers.
    """
    found, away = [], []
    for part in run.shop.parts():
        url = run.settings.connection(part.source.connection)
        try:
            found.append(mode(url, part).source(url, part, run.settings).clock())
        except SourceUnavailable as error:
            away.append(error)
    if not found:
        raise away[0]
    return min(found)


def extract(run: Run, table: str, source: ChangeSource) -> Extracted:
    """The same as `run`, from any source."""
    run.shop.require_table(table)
    return _summed(run, table, [_Step(run, table, source, each).manifest() for each in run.steps])


def _summed(run: Run, table: str, steps: list[Manifest]) -> Extracted:
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

    def again(self) -> Manifest:
        """The step's manifest, once its partition was read from the source again."""
        with self.run.ledger.lock(f"{STAGE}/{self.table}") as held:
            known = self.run.ledger.manifests(STAGE, self.table)
            done = next((each for each in known if each.interval == self.interval), None)
            if done is None:
                raise NotExtracted(
                    f"{self.partition} of {self.interval} is not on record, so it cannot be "
                    "extracted again; extract it without --reextract"
                )
            if not done.position:
                return done  # A later interval has its changes.
            self._require_types()
            try:
                self.source.check(self.table)
                written = self._reread(done, known, change_schema(self.declared).names)
            except (CaptureMissing, CorruptPartition) as error:
                raise SourceMovedOn(
                    f"{self.partition} of {self.interval} cannot be extracted again: {error}. "
                    "What is stored was not touched"
                ) from error
            kept = {name: each for name, each in done.details.items() if name != EXPIRED}
            made = replace(
                done,
                content_hash=written.hash.hexdigest(),
                details=kept | {"bytes": written.bytes, "columns": written.schema.names}
                | ({AUTO_ADDED: self.declared.auto_added} if self.declared.auto_added else {}),
            )  # fmt: skip
            self.run.ledger.record(made, held)
            return made

    def _take(self, known: list[Manifest]) -> Manifest:
        began = time.monotonic()
        self.source.check(self.table)
        self._require_types()
        migrated = self._migrated(known)
        with self.source.changes(
            self.table, self.interval.end, _position_before(known, self.interval)
        ) as taken:
            written = self._write(taken)
        lag = written.committed.lag_s(self.source.clock())
        source = self.run.shop.source_of(self.table)
        _log.info(
            "%s of %s, source %s: %s rows and %s bytes durable, at most %s s and mostly %s s after "
            "commit",
            self.table, self.interval, source, written.counts["rows"], written.bytes, lag["max"],
            lag["median"],
        )  # fmt: skip
        return Manifest(
            STAGE, self.table, self.interval, written.counts, written.hash.hexdigest(),
            position=taken.position,
            details=written.details
            | {"columns": taken.schema.names, "lag_s": lag, "source": source}
            | ({"migrated": migrated} if migrated else {})
            | ({AUTO_ADDED: self.declared.auto_added} if self.declared.auto_added else {}),
            seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip

    @property
    def declared(self) -> Table:
        return self.run.shop.tables[self.table]

    def _require_types(self) -> None:
        """Make sure that no stored column is of another type than the lake has it in."""
        if not self.run.lake.exists(self.partition):
            return
        held = self.run.lake.dataset(self.partition).schema
        for name, kind in self.declared.stored_columns().items():
            if name in held.names and held.field(name).type != kind:
                raise SchemaDrift(
                    f"{self.table}.{name} is {held.field(name).type} in the lake, but declared so "
                    f"that it is {kind} now; declare it in shops/{self.run.shop.shop}/shop.yaml as "
                    "it was, or begin anew with an empty lake and ledger of this shop"
                )

    def _migrated(self, known: list[Manifest]) -> dict[str, dict[str, str]]:
        """How the stored columns differ from those of the extraction before, by column."""
        before = [each for each in known if "columns" in each.details]
        if not before:
            return {}
        then, now = before[-1].details["columns"], change_schema(self.declared).names
        came = {
            name: {
                "how": "taken" if name in self.declared.auto_added else "declared",
                "type": self.declared.columns[name],
            }
            for name in now
            if name not in then
        }
        moves = came | {name: {"how": "left out"} for name in then if name not in now}
        for name, move in moves.items():
            _log.warning("%s.%s %s from %s on", self.table, name, move["how"], self.interval)
        return moves

    def _yield_to(self, later: Manifest) -> Manifest:
        """An interval that is asked for after a later one, which took its changes."""
        written = self._write(Taken({}, change_schema(self.declared), iter(())))
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
        if EXPIRED in done.details:
            raise Expired(
                f"{self.partition} of {self.interval} was removed by `retention.changes_days` in "
                f"shops/{self.run.shop.shop}/shop.yaml; what was made of it stands: begin with a "
                "later interval, or bring the partition back from a backup of the lake"
            )
        if not held and done.position:
            self._restore(done, known)
            return
        raise CorruptPartition(
            f"{self.run.lake.uri(self.partition)}, partition {self.interval.key}: holds {held} "
            f"rows, its manifest says {expected}; `python -m pipelines extract --reextract` takes "
            "it from the source again"
        )

    def _held(self) -> int | None:
        """Rows in the partition, all of them read; None where a file is damaged or missing."""
        if not self.run.lake.exists(self.partition):
            return 0
        try:
            return self.run.lake.count(self.partition, self.interval)
        except CorruptPartition:
            return None

    def _restore(self, done: Manifest, known: list[Manifest]) -> None:
        try:
            self._reread(done, known, done.details["columns"])
        except CorruptPartition as error:
            raise CorruptPartition(
                f"{self.run.lake.uri(self.partition)}, partition {self.interval.key} is lost: "
                f"{error}"
            ) from error

    def _reread(self, done: Manifest, known: list[Manifest], names: list[str]) -> _Written:
        """Replace the partition by what the source gives, if it is what it gave before.

        Args:
            names: the columns to store, among them those that were stored before.
        """
        after: Position | None = _position_before(known, self.interval)
        with tempfile.TemporaryFile(prefix="freshrank-") as spool:
            with self.source.changes(self.table, self.interval.end, after, done.position) as taken:
                before = self._selected(taken.schema, done.details["columns"])
                written = _Written(self._selected(taken.schema, names), self.interval)
                same = ContentHash(before)
                with pa.ipc.new_stream(spool, written.schema) as writer:
                    for batch in taken.batches:
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
            self.run.lake.replace(self.partition, self.interval, pa.ipc.open_stream(spool))
        return written

    def _selected(self, schema: pa.Schema, names: list[str]) -> pa.Schema:
        if gone := [name for name in names if name not in schema.names]:
            raise CorruptPartition(
                f"it was extracted with {', '.join(gone)}, which shops/{self.run.shop.shop}/"
                "shop.yaml no longer has; declare it until the partition is there again"
            )
        return pa.schema([schema.field(name) for name in names])


class _Written:
    """Counts and hashes the changes that pass through on their way into the lake."""

    def __init__(self, schema: pa.Schema, interval: Interval) -> None:
        self.schema = schema
        self.hash = ContentHash(schema)
        self.counts = {"rows": 0, INSERT: 0, UPDATE: 0, DELETE: 0}
        self.committed = CommitTimes()
        self.bytes = 0
        """As Arrow holds them, before Parquet compresses them."""
        self.late = 0
        """Changes that were committed before the interval began."""
        self._start = pa.scalar(interval.start, pa.timestamp("us", tz="UTC"))

    @property
    def details(self) -> dict[str, Any]:
        """What the manifest keeps beside the counts."""
        return {"late": self.late, "bytes": self.bytes}

    def through(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.hash.add(batch)
            self.counts["rows"] += batch.num_rows
            for op in (INSERT, UPDATE, DELETE):
                self.counts[op] += pc.equal(batch.column(OP), pa.scalar(op)).true_count
            self.bytes += batch.nbytes
            self.committed.add(batch.column(COMMITTED_AT))
            self.late += pc.less(batch.column(COMMITTED_AT), self._start).true_count
            yield batch


def positions(ledger: Ledger) -> dict[str, Position]:
    """The last position on record of each table that has one."""
    known = ledger.manifests(STAGE)
    return {each.subject: each.position for each in known if each.position}


def _position_before(known: list[Manifest], interval: Interval) -> Position | None:
    """The position from which an interval goes on: that of the last one extracted before it."""
    before = [each for each in known if each.position and each.interval.end < interval.end]
    return before[-1].position if before else None
