"""Repair of what verification reports: each stage rebuilds its own partition."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipelines.maintain.backup import restore
from pipelines.maintain.checks import STAGES
from pipelines.maintain.verify import Fault
from pipelines.shared.run import Installation, Run


def repair(installation: Installation, faults: Iterable[Fault]) -> list[str]:
    """Rebuild the partitions of some faults, the earlier stages first.

    Changes and models come from the backup, or else changes from the source, which has to give
    exactly the rows on record. The other stages work from the changes. Verify again afterwards.

    Returns:
        A line for each partition that was rebuilt or restored.

    Raises:
        SourceMovedOn: there is no backup of the partition, and the source does not give the same
            changes any more; what is stored stays.
        FreshrankError: a stage failed; what was repaired before stays repaired.
    """
    broken = {(fault.stage, fault.interval, fault.subject) for fault in faults}
    done = []
    for stage, interval, subject in sorted(broken, key=lambda each: (STAGES.index(each[0]), each)):
        manifest = installation.ledger.manifest(stage, subject, interval)
        if manifest is not None and restore(installation, manifest):
            done.append(f"{stage} {subject} {interval}: restored from the backup")
            continue
        _again(installation.run(interval), stage, subject)
        done.append(f"{stage} {subject} {interval}: rebuilt")
    return done


def _again(run: Run, stage: str, subject: str) -> None:
    from pipelines import evaluate, extract, features, train, validate

    if stage == "extract":
        extract.reextract(run, subject)
    elif stage == "validate":
        validate.run(run, subject)
    else:
        of_surface: dict[str, Callable[[Run], object]] = {
            "features": features.run,
            "serve": features.serve,
            "train": train.run,
            "evaluate": evaluate.run,
        }
        of_surface[stage](run)
