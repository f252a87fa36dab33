"""Which steps a run has to fold: its own, those left over, and those whose past has changed.

A step is folded from its own sound changes and the state before it. Its manifest names both, so
that a step whose changes were validated again, or that follows a step folded again with another
result, is known and folded again too (law 4).
"""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.features.state import storage
from pipelines.shared.errors import CorruptPartition, PermanentError
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run

Inputs = dict[str, str]
"""Source table → content hash of a step's validated changes; only tables that have any."""


class StepMissing(PermanentError):
    """A step that this stage builds on was not validated, or not folded."""


def validated(run: Run) -> dict[Interval, Inputs]:
    """The steps that are validated for every table.

    A table that was first extracted later than a step has no changes in it: that extraction brings
    the table's whole past.

    Raises:
        StepMissing: a step up to the run's end is not, and a later one would lack its changes.
    """
    tables = storage.tables_read(run.shop)
    extracted = _by_table(run, "extract", tables)
    done = _by_table(run, "validate", tables)
    first = {
        table: min([*extracted[table], *done[table]], default=run.steps[-1]) for table in tables
    }
    steps = {step for known in (*extracted.values(), *done.values()) for step in known}
    complete: dict[Interval, Inputs] = {}
    missing: list[tuple[Interval, str]] = []
    for step in sorted(steps | set(run.steps)):
        without = [
            table
            for table in tables
            if step not in done[table] and (step in run.steps or step >= first[table])
        ]
        if not without:
            complete[step] = {
                table: done[table][step].content_hash
                for table in tables
                if step in done[table] and done[table][step].counts["valid"]
            }
        elif step.end <= run.interval.end:
            missing += [(step, table) for table in without]
    if missing:
        raise StepMissing(_without_steps(run, missing))
    return complete


def _by_table(run: Run, stage: str, tables: list[str]) -> dict[str, dict[Interval, Manifest]]:
    known: dict[str, dict[Interval, Manifest]] = {table: {} for table in tables}
    for manifest in run.ledger.manifests(stage):
        if manifest.subject in known:
            known[manifest.subject][manifest.interval] = manifest
    return known


def _without_steps(run: Run, missing: list[tuple[Interval, str]]) -> str:
    step = missing[0][0]
    tables = [table for each, table in missing if each == step]
    later = len({each for each, _ in missing}) - 1
    return (
        f"{run.shop.shop}: {step} was not validated for {', '.join(tables)}"
        f"{f' (nor were {later} later steps)' if later else ''}, and what follows builds on it; "
        "clear its failed tasks `extract` and `validate` in Airflow, or run `python -m pipelines "
        f"run --shop {run.shop.shop} --start {step.start:%FT%TZ} --end {step.end:%FT%TZ}`, then "
        "this again"
    )


def is_stale(folded: Manifest, inputs: Inputs | None, before: Manifest | None, anew: bool) -> bool:
    """Whether a folded step would be folded from something else today.

    Args:
        folded: the step's manifest; one of an earlier version of Freshrank says nothing of it.
        inputs: the step's validated changes; None where they are not complete, so that it stays.
        before: the manifest of the step before it.
        anew: whether the step before was folded again just now.
    """
    if inputs is None:
        return False
    if "inputs" not in folded.details:
        return anew
    expected = {"inputs": inputs, "after": chain_of(before)}
    return any(folded.details[name] != value for name, value in expected.items())


def chain_of(folded: Manifest | None) -> str | None:
    """The chain of a step (`step_writer.chain`); None before the first, or of an older record."""
    return folded.details.get("chain") if folded else None


def require_state(run: Run, folded: Mapping[Interval, Manifest]) -> None:
    """Hold the lake to the record of some steps, by numbers of rows, which its log keeps.

    Raises:
        CorruptPartition: a partition of the state lacks rows that were written, or has others.
    """
    recorded = {
        step: manifest.details.get("state", {}) for step, manifest in sorted(folded.items())
    }
    tables = {table for record in recorded.values() for table in record}
    held = {table: run.lake.row_counts(table) for table in sorted(tables)}
    for step, record in recorded.items():
        for table, each in record.items():
            if (rows := held[table].get(step.key, 0)) != each["rows"]:
                raise CorruptPartition(
                    f"{run.lake.uri(table)}, partition {step.key}: holds {rows:,} rows, on record "
                    f"are {each['rows']:,}; `python -m pipelines verify --repair --shop "
                    f"{run.shop.shop} --start {step.start:%FT%TZ} --end {step.end:%FT%TZ}` builds "
                    "it again, then run this again"
                )
