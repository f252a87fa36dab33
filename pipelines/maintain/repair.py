"""Repair of what verification reports: each stage rebuilds its own partition."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.maintain.backup import restore
from pipelines.maintain.verify import STAGES, Fault
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation


def repair(installation: Installation, faults: Iterable[Fault]) -> list[str]:
    """Rebuild the partitions of some faults, the earlier stages first.

    Changes come from the backup or else from the source; either has to give exactly the rows on
    record. The other stages work from the changes. Verify again afterwards.

    Returns:
        A line for each partition that was rebuilt or restored.

    Raises:
        SourceMovedOn: there is no backup of the partition, and the source does not give the same
            changes any more; what is stored stays.
        FreshrankError: a stage failed; what was repaired before stays repaired.
    """
    from pipelines import extract, features, validate

    broken = {(fault.stage, fault.interval, fault.subject) for fault in faults}
    done = []
    for stage, interval, subject in sorted(broken, key=lambda each: (STAGES.index(each[0]), each)):
        run = installation.run(interval)
        if stage == "extract" and _restored(installation, interval, subject):
            done.append(f"{stage} {subject} {interval}: restored from the backup")
            continue
        if stage == "extract":
            extract.reextract(run, subject)
        elif stage == "validate":
            validate.run(run, subject)
        else:
            features.run(run)
        done.append(f"{stage} {subject} {interval}: rebuilt")
    return done


def _restored(installation: Installation, interval: Interval, table: str) -> bool:
    manifest = installation.ledger.manifest("extract", table, interval)
    return manifest is not None and restore(installation, manifest)
