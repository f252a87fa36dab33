"""Mending what verification found: each stage makes its own partition again."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.maintain.backup import bring_back
from pipelines.maintain.verify import STAGES, Fault
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation


def repair(installation: Installation, faults: Iterable[Fault]) -> list[str]:
    """Make the partitions of some faults again, the earlier stages first.

    Changes come from the backup or else from the source; either has to give exactly the rows on
    record. The other stages work from the changes. Verify again afterwards.

    Returns:
        A line for each partition made again.

    Raises:
        SourceMovedOn: there is no backup of the partition, and the source does not give the same
            changes any more; what is stored stays.
        FreshrankError: a stage failed; what was mended before stays mended.
    """
    from pipelines import extract, features, validate

    broken = {(fault.stage, fault.interval, fault.subject) for fault in faults}
    done = []
    for stage, interval, subject in sorted(broken, key=lambda each: (STAGES.index(each[0]), each)):
        run = installation.run(interval)
        if stage == "extract" and _brought_back(installation, interval, subject):
            done.append(f"{stage} {subject} {interval}: brought back from the backup")
            continue
        if stage == "extract":
            extract.reextract(run, subject)
        elif stage == "validate":
            validate.run(run, subject)
        else:
            features.run(run)
        done.append(f"{stage} {subject} {interval}: made again")
    return done


def _brought_back(installation: Installation, interval: Interval, table: str) -> bool:
    manifest = installation.ledger.manifest("extract", table, interval)
    return manifest is not None and bring_back(installation, manifest)
