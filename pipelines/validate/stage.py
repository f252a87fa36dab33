"""The stage's entry point: a partition is split into valid, quarantined and duplicate rows."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared.columns import (
    CHANGE_COLUMNS,
    DELETE,
    EXPIRED,
    INTERVAL,
    MISFITS,
    OP,
    REASONS,
)
from pipelines.shared.errors import (
    AccountingError,
    BatchRejected,
    ChangedMeanwhile,
    CorruptPartition,
    Expired,
    NotExtracted,
)
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import in_source_order
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run
from pipelines.validate.docs import data_docs, write_data_docs
from pipelines.validate.duplicates import repeated
from pipelines.validate.expectations import SuiteResult, apply
from pipelines.validate.reasons import reasons
from pipelines.validate.suite import Suite, load_suite

STAGE = "validate"
FITS = "values fit their declared types"
"""The rule that needs no suite; extraction applies it."""


@dataclass(frozen=True)
class Validated:
    """The outcome of one run of the stage for a table."""

    table: str
    steps: tuple[str, ...]
    """Keys of the partitions that were split, oldest first."""
    extracted: int
    valid: int
    quarantined: int
    duplicates: int

    def as_dict(self) -> dict[str, Any]:
        """The same as a JSON-able mapping."""
        return asdict(self) | {"steps": list(self.steps)}


@dataclass(frozen=True)
class _Split:
    """One partition; `quarantine` has the further column `_reasons`."""

    valid: pa.Table
    quarantine: pa.Table
    duplicates: int
    misfits: int = 0
    """Rows of the quarantine with a value that did not fit its declared type."""
    result: SuiteResult | None = None
    """Of the rules on rows; None where there are no rows or no rules."""


def run(run: Run, table: str) -> Validated:
    """Validate every partition of a table that waits for it, and the run's own ones again.

    Reads `changes/<table>`; replaces the partitions of `valid/<table>` and `quarantine/<table>`;
    records one manifest a partition.

    Raises:
        SuiteError: the table's suite is missing or wrong.
        NotExtracted: a step of the run was never extracted.
        BatchRejected: a partition is unsound as a whole; nothing of it was written.
        CorruptPartition: a partition differs from what extraction recorded.
        Expired: the changes of a step of the run were removed by the declared retention.
        AccountingError: extracted = valid + quarantined + duplicates does not hold.
    """
    suite = load_suite(run.settings.expectations, run.shop, table)
    manifests = [_validate(run, suite, extracted) for extracted in _waiting(run, table)]
    total = {
        name: sum(manifest.counts[name] for manifest in manifests)
        for name in ("extracted", "valid", "quarantined", "duplicates")
    }
    return Validated(table, tuple(manifest.interval.key for manifest in manifests), **total)


def _waiting(run: Run, table: str) -> list[Manifest]:
    """Extraction's manifests of the partitions to validate, oldest first."""
    extracted = {
        manifest.interval: manifest
        for manifest in run.ledger.manifests("extract", table)
        if manifest.interval.end <= run.interval.end
    }
    for step in run.steps:
        if step not in extracted:
            raise NotExtracted(
                f"changes/{table} of {step} was never extracted; run the extract stage of this "
                "interval first, then clear this task"
            )
    validated = {manifest.interval for manifest in run.ledger.manifests(STAGE, table)}
    wanted = set(extracted) - validated | set(run.steps)
    return [extracted[interval] for interval in sorted(wanted)]


def _validate(run: Run, suite: Suite, extracted: Manifest) -> Manifest:
    started = time.monotonic()
    interval, table = extracted.interval, suite.table
    changes = _read(run, table, extracted)
    names = [name for name in changes.column_names if name != MISFITS]
    columns = tuple(name for name in names if name not in CHANGE_COLUMNS)
    split = _split(changes, suite, columns, run.settings.threads)
    docs = data_docs(run.lake.local_root, table, interval)
    if split.result is not None:
        write_data_docs(docs, interval, split.result.document)
    broken = _broken(split)
    _require_sound(suite, interval, split, broken, docs)
    batch = _check_batch(suite, interval, split.valid)
    counts = {
        "extracted": changes.num_rows, "valid": split.valid.num_rows,
        "quarantined": split.quarantine.num_rows, "duplicates": split.duplicates,
    }  # fmt: skip
    _account(table, interval, counts)
    hashes = [content_hash(split.valid), content_hash(split.quarantine)]
    details: dict[str, Any] = {"reasons": broken, "batch": batch}
    if split.result is not None:
        details["page"] = docs.relative_to(run.lake.local_root).as_posix()
    manifest = Manifest(
        STAGE,
        table,
        interval,
        counts,
        hashlib.sha256("".join(hashes).encode()).hexdigest(),
        details=details | {"columns": names, "hashes": hashes},
        seconds=time.monotonic() - started,
    )
    with run.ledger.lock(f"{STAGE}/{table}") as held:
        _require_unchanged(run, extracted)
        run.lake.replace(f"valid/{table}", interval, split.valid)
        run.lake.replace(f"quarantine/{table}", interval, split.quarantine)
        run.ledger.record(manifest, held)
    return manifest


def _read(run: Run, table: str, extracted: Manifest) -> pa.Table:
    """The partition in the order of the source, without the partition column."""
    name, interval = f"changes/{table}", extracted.interval
    try:
        rows = run.lake.read(name, [interval]).drop_columns([INTERVAL])
    except KeyError:
        raise CorruptPartition(
            f"{run.lake.uri(name)} is gone, though {interval} was extracted to it; rerun the "
            "extract stage of the interval, then clear this task"
        ) from None
    expected = extracted.counts["rows"]
    if rows.num_rows != expected and EXPIRED in extracted.details:
        raise Expired(
            f"{name} of {interval} was removed by `retention.changes_days` in "
            f"shops/{run.shop.shop}/shop.yaml, so it cannot be validated again; what was "
            "validated stands: begin with a later interval, or bring the partition back from a "
            "backup of the lake"
        )
    if rows.num_rows != expected:
        raise CorruptPartition(
            f"{name} of {interval} holds {rows.num_rows} rows, but {expected} were extracted; "
            "rerun the extract stage of the interval, then clear this task"
        )
    return in_source_order(rows)


def _require_unchanged(run: Run, extracted: Manifest) -> None:
    """Make sure that what was read was not rewritten meanwhile, without a forgotten shopper."""
    now = run.ledger.manifest("extract", extracted.subject, extracted.interval)
    if now is None or now.content_hash != extracted.content_hash:
        raise ChangedMeanwhile(
            f"changes/{extracted.subject} of {extracted.interval} was rewritten while it was "
            "validated; nothing was written, run validate again"
        )


def _split(changes: pa.Table, suite: Suite, columns: tuple[str, ...], threads: int) -> _Split:
    """Split a partition; one without rows needs no rules.

    What extraction found not to fit its type is quarantined, and no rule is asked about it: its
    value is not there any more.
    """
    if MISFITS not in changes.column_names:  # An older partition.
        changes = changes.append_column(MISFITS, pa.nulls(changes.num_rows, pa.string()))
    if changes.num_rows == 0:
        none = changes.drop_columns([MISFITS])
        return _Split(none, none.append_column(REASONS, pa.array([], pa.string())), 0)
    duplicates = repeated(changes, suite.key, (*columns, MISFITS), threads)
    kept = changes.filter(pa.array(~duplicates))
    unfit = _unfit(kept, suite.key)
    misfits = kept.filter(unfit).rename_columns({MISFITS: REASONS})
    kept = kept.filter(pc.invert(unfit)).drop_columns([MISFITS])
    rules = suite.of("row")
    result = apply(suite, rules, kept) if rules and kept.num_rows else None
    unsound, texts = reasons(suite.table, result.rules if result else (), kept)
    sound = np.ones(kept.num_rows, dtype=np.bool_)
    sound[unsound] = False
    quarantine = kept.take(unsound).append_column(REASONS, texts)
    if misfits.num_rows:
        misfits = misfits.select(quarantine.column_names)
        quarantine = in_source_order(pa.concat_tables([misfits, quarantine]))
    return _Split(
        kept.filter(pa.array(sound)), quarantine, int(duplicates.sum()), misfits.num_rows, result
    )


def _unfit(changes: pa.Table, key: tuple[str, ...]) -> Any:
    """Which rows hold a misfit that matters: of a delete nothing does but its key."""
    gone: Any = pc.equal(changes.column(OP), pa.scalar(DELETE))
    for name in key:
        gone = pc.and_(gone, changes.column(name).is_valid())
    return pc.and_(changes.column(MISFITS).is_valid(), pc.invert(gone))


def _require_sound(
    suite: Suite, interval: Interval, split: _Split, broken: dict[str, int], docs: Path
) -> None:
    bad = split.quarantine.num_rows
    checked = bad + split.valid.num_rows
    if bad <= max(suite.tolerated_rows, suite.max_quarantined_share * checked):
        return
    counted = sorted(broken.items(), key=lambda item: -item[1])
    worst = "; ".join(f"{count:,} rows break `{label}`" for label, count in counted[:3])
    raise BatchRejected(
        f"{suite.table} of {interval}: {bad:,} of {checked:,} rows are unsound "
        f"({bad / checked:.1%}, allowed {suite.max_quarantined_share:.1%}): {worst}. Nothing was "
        f"written; {docs} shows examples, and the rows stay in changes/{suite.table}. "
        f"{_way_out(suite.path)}"
    )


def _check_batch(suite: Suite, interval: Interval, valid: pa.Table) -> list[str]:
    """Apply the rules on a batch to all sound rows but deletes; returns a line a rule that held."""
    rules = suite.of("batch")
    living = valid.filter(pc.not_equal(valid.column(OP), pa.scalar(DELETE))) if rules else valid
    if not rules or living.num_rows == 0:
        return []
    results = apply(suite, rules, living).rules
    failed = [f"{each.rule.label} ({each.observed})" for each in results if not each.passed]
    if failed:
        raise BatchRejected(
            f"{suite.table} of {interval}: the batch of {living.num_rows:,} sound rows breaks "
            f"{'; '.join(f'`{line}`' for line in failed)}. Nothing was written; the rows stay in "
            f"changes/{suite.table}. {_way_out(suite.path)}"
        )
    return [f"{each.rule.label} ({each.observed})" for each in results]


def _way_out(path: Path) -> str:
    return (
        f"If the rows are right, mend the rule in {path}; if they are wrong and the rest is "
        "wanted, raise its `max_quarantined_share` or loosen the rule on the batch; then clear "
        "this task. Rows mended at the source come as updates with a later interval"
    )


def _broken(split: _Split) -> dict[str, int]:
    """Rule → rows that break it, for the rules that some row breaks."""
    broken = {FITS: split.misfits} if split.misfits else {}
    for result in split.result.rules if split.result else ():
        if len(result.rows):
            label = result.rule.label
            broken[label] = broken.get(label, 0) + len(result.rows)
    return broken


def _account(table: str, interval: Interval, counts: dict[str, int]) -> None:
    """Law 2: no row is lost or doubled."""
    parts = counts["valid"] + counts["quarantined"] + counts["duplicates"]
    if parts != counts["extracted"]:
        raise AccountingError(
            f"{table} of {interval}: {counts['extracted']} rows were extracted, but "
            f"{counts['valid']} valid + {counts['quarantined']} quarantined + "
            f"{counts['duplicates']} duplicates = {parts}; nothing was written. This is a fault "
            "of Freshrank: keep changes/ and report it"
        )
