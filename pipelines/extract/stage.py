"""The stage: one table's changes of each step of a run, into the lake and onto the record.

The rows are durable before the manifest that moves the source position is recorded. A run that
dies in between leaves a partition without a manifest: nobody reads it, the rerun replaces it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipelines.extract.modes import mode, with_new_columns
from pipelines.extract.partition import StepPartition
from pipelines.extract.position import (
    CAPTURE,
    position_before,
    positions,
    require_same_capture,
)
from pipelines.extract.source import ChangeBatch, ChangeSource, change_schema
from pipelines.shared.columns import AUTO_ADDED, DELETE, EXPIRED, INSERT, MISFITS, UPDATE
from pipelines.shared.errors import CorruptPartition, Expired, SourceUnavailable
from pipelines.shared.ledger import Manifest
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

    Raises:
        DeclarationError: the table is not declared.
        CaptureChanged: it was extracted in another capture mode before.
        SchemaDrift, CaptureMissing, SettingsError, SourceUnavailable: see `ChangeSource`.
        CorruptPartition: a partition does not hold what its manifest says.
        Expired: the partition was removed by the declared retention.
        LedgerUnavailable: the ledger does not answer.
    """
    run.shop.require_table(table)
    known = {each.interval for each in run.ledger.manifests(STAGE, table)}
    run, source = open_source(run, table, look=not known.issuperset(run.steps))
    extracted = extract(run, table, source)
    part = run.shop.part(run.shop.source_of(table))
    url = run.settings.connection(part.source.connection)
    captured = mode(url, part)
    if captured.release:
        captured.release(url, part, positions(run.ledger.manifests(STAGE), part))
    if captured.ahead:
        alone = part.model_copy(update={"tables": {table: part.tables[table]}})
        for each in captured.ahead(url, alone):
            _log.warning("%s lies in the future, and waits for an interval then", each)
    return extracted


def open_source(run: Run, table: str, *, look: bool) -> tuple[Run, ChangeSource]:
    """The run with every column to store, new ones too if `look` is set; and the table's source."""
    part = run.shop.part(run.shop.source_of(table))
    url = run.settings.connection(part.source.connection)
    known = run.ledger.manifests(STAGE, table)
    require_same_capture(known, part)
    before = auto_added_columns(known[-1:])
    part = with_new_columns(url, part, before) if look else part.with_columns(before)
    tables = {**run.shop.tables, table: part.tables[table]}
    run = replace(run, shop=run.shop.model_copy(update={"tables": tables}))
    return run, mode(url, part).source(url, part, run.settings)


def auto_added_columns(last: Iterable[Manifest]) -> dict[str, dict[str, str]]:
    """Table → column → type of the columns that nobody declared, by the tables' last manifests."""
    return {each.subject: each.details.get(AUTO_ADDED, {}) for each in last}


def clock(run: Run) -> datetime:
    """The time in the shop, in UTC: the earliest of its sources' clocks, of those that answer.

    Raises:
        SourceUnavailable: no source answers.
    """
    times, away = [], []
    for part in run.shop.parts():
        url = run.settings.connection(part.source.connection)
        try:
            times.append(mode(url, part).source(url, part, run.settings).clock())
        except SourceUnavailable as error:
            away.append(error)
    if not times:
        raise away[0]
    return min(times)


def extract(run: Run, table: str, source: ChangeSource) -> Extracted:
    """The same as `run`, from any source."""
    run.shop.require_table(table)
    return every_step(run, table, source, _manifest)


def every_step(
    run: Run, table: str, source: ChangeSource, manifest_of: Callable[[StepPartition], Manifest]
) -> Extracted:
    """What the steps of a run extracted, by their manifests."""
    steps = [manifest_of(StepPartition(run, table, source, each)) for each in run.steps]
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


def _manifest(partition: StepPartition) -> Manifest:
    """The step's manifest; it is extracted unless it is on record."""
    with on_record(partition) as (lock, known, done):
        if done is not None:
            _verify(partition, done, known)
            return done
        end = partition.interval.end
        later = [each for each in known if each.interval.end >= end and each.position]
        manifest = _yield_to(partition, later[0]) if later else _extract(partition, known)
        partition.run.ledger.record(manifest, lock)
        return manifest


@contextmanager
def on_record(
    partition: StepPartition,
) -> Iterator[tuple[sa.Connection, list[Manifest], Manifest | None]]:
    """The table's manifests, and the step's own if it has one; nobody adds any in the block."""
    ledger = partition.run.ledger
    with ledger.lock(f"{STAGE}/{partition.table}") as lock:
        known = ledger.manifests(STAGE, partition.table)
        done = next((each for each in known if each.interval == partition.interval), None)
        yield lock, known, done


def _extract(partition: StepPartition, known: list[Manifest]) -> Manifest:
    began = time.monotonic()
    run, table, interval, source = (
        partition.run, partition.table, partition.interval, partition.source
    )  # fmt: skip
    source.check(table)
    partition.require_types()
    migrated = _migrated(partition, known)
    with source.changes(table, interval.end, position_before(known, interval)) as changes:
        written = partition.write(changes)
    lag = written.committed.lag_s(source.clock())
    details = {
        "late": written.late, "bytes": written.bytes, "columns": written.columns,
        "lag_s": lag, "source": run.shop.source_of(table),
        CAPTURE: run.shop.part(run.shop.source_of(table)).source.capture,
    }  # fmt: skip
    _log.info(
        "%s of %s, source %s: %s rows and %s bytes durable, at most %s s and mostly %s s after "
        "commit",
        table, interval, details["source"], written.counts["rows"], written.bytes, lag["max"],
        lag["median"],
    )  # fmt: skip
    if written.misfits:
        details["misfits"] = written.misfits
        _log.warning(
            "%s of %s: %s rows hold a value that its declared type cannot hold, and will be "
            "quarantined: %s",
            table, interval, written.misfits, "; ".join(written.examples),
        )  # fmt: skip
    if migrated:
        details["migrated"] = migrated
    if partition.declared.auto_added:
        details[AUTO_ADDED] = partition.declared.auto_added
    return Manifest(
        STAGE, table, interval, written.counts, written.hash.hexdigest(),
        position=changes.position, details=details,
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


def _migrated(partition: StepPartition, known: list[Manifest]) -> dict[str, dict[str, str]]:
    """How the stored columns differ from those of the extraction before, by column."""
    before = [each for each in known if "columns" in each.details]
    if not before:
        return {}
    declared = partition.declared
    then = before[-1].details["columns"]
    now = [name for name in change_schema(declared).names if name != MISFITS]
    added = {
        name: {
            "how": "taken" if name in declared.auto_added else "declared",
            "type": declared.columns[name],
        }
        for name in now
        if name not in then
    }
    moves = added | {name: {"how": "left out"} for name in then if name not in now}
    for name, move in moves.items():
        _log.warning("%s.%s %s from %s on", partition.table, name, move["how"], partition.interval)
    return moves


def _yield_to(partition: StepPartition, later: Manifest) -> Manifest:
    """An interval that is asked for after a later one, which has its changes."""
    written = partition.write(ChangeBatch({}, change_schema(partition.declared), iter(())))
    return Manifest(
        STAGE, partition.table, partition.interval, written.counts, written.hash.hexdigest(),
        details={"taken_by": later.interval.key},
    )  # fmt: skip


def _verify(partition: StepPartition, done: Manifest, known: list[Manifest]) -> None:
    """Make sure that the partition is what its manifest says; restore one that is lost."""
    expected, rows = done.counts["rows"], partition.rows_held()
    if rows == expected:
        return
    run, key = partition.run, partition.interval.key
    if EXPIRED in done.details:
        raise Expired(
            f"{partition.name} of {partition.interval} was removed by `retention.changes_days` in "
            f"shops/{run.shop.shop}/shop.yaml; what was built from it stands: begin with a later "
            "interval, or bring the partition back from a backup of the lake"
        )
    uri = run.lake.uri(partition.name)
    if rows or not done.position:
        raise CorruptPartition(
            f"{uri}, partition {key}: holds {rows} rows, its manifest says {expected}; `python -m "
            "pipelines extract --reextract` reads it from the source again"
        )
    try:
        partition.reread(done, known, done.details["columns"])
    except CorruptPartition as error:
        raise CorruptPartition(f"{uri}, partition {key} is lost: {error}") from error
