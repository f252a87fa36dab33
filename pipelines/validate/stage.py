"""The validate stage: each extracted partition is split into valid, quarantined and repeated."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared.columns import CHANGE_COLUMNS, DELETE, EXPIRED, INTERVAL, OP, REASONS
from pipelines.shared.errors import (
    AccountingError,
    BatchRejected,
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
from pipelines.validate.expectations import Finding, Judgement, judge
from pipelines.validate.reasons import reasons
from pipelines.validate.suite import Suite, load_suite

STAGE = "validate"


@dataclass(frozen=True)
class Validated:
    """What one run of the stage made of a table's changes."""

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
    """One partition, judged: `quarantine` has the further column `_reasons`."""

    valid: pa.Table
    quarantine: pa.Table
    duplicates: int
    judgement: Judgement | None = None

    def counts(self) -> dict[str, int]:
        """Rows on each side; what was extracted is counted by the caller."""
        return {
            "valid": self.valid.num_rows,
            "quarantined": self.quarantine.num_rows,
            "duplicates": self.duplicates,
        }


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
    done = [_validate(run, suite, manifest) for manifest in _waiting(run, table)]
    total = {
        name: sum(manifest.counts[name] for manifest in done)
        for name in ("extracted", "valid", "quarantined", "duplicates")
    }
    return Validated(table, tuple(manifest.interval.key for manifest in done), **total)


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
    columns = tuple(name for name in changes.column_names if name not in CHANGE_COLUMNS)
    split = _split(changes, suite, columns, run.settings.threads)
    docs = data_docs(run.lake.local_root, table, interval)
    if split.judgement is not None:
        write_data_docs(docs, interval, split.judgement.result)
    findings = split.judgement.findings if split.judgement else ()
    _refuse_unsound(suite, interval, split, findings, docs)
    batch = _judge_batch(suite, interval, split.valid)
    counts = {"extracted": changes.num_rows} | split.counts()
    _account(table, interval, counts)
    hashes = [content_hash(split.valid), content_hash(split.quarantine)]
    details = {"reasons": _counted(findings), "batch": batch}
    manifest = Manifest(
        STAGE,
        table,
        interval,
        counts,
        hashlib.sha256("".join(hashes).encode()).hexdigest(),
        details=details | {"columns": changes.column_names, "hashes": hashes},
        seconds=time.monotonic() - started,
    )
    with run.ledger.lock(f"{STAGE}/{table}") as held:
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
            f"{run.lake.uri(name)} has gone, though {interval} was extracted to it; rerun the "
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


def _split(changes: pa.Table, suite: Suite, columns: tuple[str, ...], threads: int) -> _Split:
    """Part a partition; one without rows needs no judge."""
    if changes.num_rows == 0:
        return _Split(changes, _with_reasons(changes, pa.array([], pa.string())), 0)
    again = repeated(changes, suite.key, columns, threads)
    kept = changes.filter(pa.array(~again))
    rules = suite.of("row")
    judgement = judge(suite, rules, kept) if rules else None
    unsound, texts = reasons(suite.table, judgement.findings if judgement else (), kept)
    sound = np.ones(kept.num_rows, dtype=np.bool_)
    sound[unsound] = False
    return _Split(
        kept.filter(pa.array(sound)),
        _with_reasons(kept.take(unsound), texts),
        int(again.sum()),
        judgement,
    )


def _with_reasons(rows: pa.Table, texts: pa.Array[Any]) -> pa.Table:
    return rows.append_column(REASONS, texts)


def _refuse_unsound(
    suite: Suite, interval: Interval, split: _Split, findings: tuple[Finding, ...], docs: Path
) -> None:
    bad = split.quarantine.num_rows
    judged = bad + split.valid.num_rows
    if bad <= max(suite.tolerated_rows, suite.max_quarantined_share * judged):
        return
    counted = sorted(_counted(findings).items(), key=lambda item: -item[1])
    worst = "; ".join(f"{count:,} rows break `{label}`" for label, count in counted[:3])
    raise BatchRejected(
        f"{suite.table} of {interval}: {bad:,} of {judged:,} rows are unsound "
        f"({bad / judged:.1%}, allowed {suite.max_quarantined_share:.1%}): {worst}. Nothing was "
        f"written; {docs} shows examples, and the rows stay in changes/{suite.table}. "
        f"{_way_out(suite.path)}"
    )


def _judge_batch(suite: Suite, interval: Interval, valid: pa.Table) -> list[str]:
    """Judge the sound rows together, without deletes.

    Returns:
        A line a rule that held.
    """
    rules = suite.of("batch")
    living = valid.filter(pc.not_equal(valid.column(OP), pa.scalar(DELETE))) if rules else valid
    if not rules or living.num_rows == 0:
        return []
    findings = judge(suite, rules, living).findings
    failed = [f"{each.rule.label} ({each.observed})" for each in findings if not each.passed]
    if failed:
        raise BatchRejected(
            f"{suite.table} of {interval}: the batch of {living.num_rows:,} sound rows breaks "
            f"{'; '.join(f'`{line}`' for line in failed)}. Nothing was written; the rows stay in "
            f"changes/{suite.table}. {_way_out(suite.path)}"
        )
    return [f"{each.rule.label} ({each.observed})" for each in findings]


def _way_out(path: Path) -> str:
    return (
        f"If the rows are right, mend the rule in {path}; if they are wrong and the rest is "
        "wanted, raise its `max_quarantined_share` or loosen the rule on the batch; then clear "
        "this task. Rows mended at the source come as updates with a later interval"
    )


def _counted(findings: tuple[Finding, ...]) -> dict[str, int]:
    """Rule → rows that break it, for the rules that some row breaks."""
    counted: dict[str, int] = {}
    for finding in findings:
        if len(finding.rows):
            label = finding.rule.label
            counted[label] = counted.get(label, 0) + len(finding.rows)
    return counted


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
