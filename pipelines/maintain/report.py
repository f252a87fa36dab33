"""What maintenance did, verification found and forgetting erased, as a person reads it on a
terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipelines.maintain.forget import Forgot
from pipelines.maintain.upkeep import Upkeep
from pipelines.maintain.verify import Report


def faults(report: Report) -> list[Table | str]:
    """A table of what is wrong, a line with the totals, and what to do."""
    expired = f", {report.expired} of them expired" if report.expired else ""
    totals = f"{report.shop}: {report.checked} manifests, {report.rows:,} changes{expired}: "
    if not report.faults:
        return [totals + "the lake is what the ledger says"]
    wrong = Table("stage", "of", "interval", "what is wrong", box=SIMPLE_HEAD, pad_edge=False)
    for fault in report.faults:
        wrong.add_row(fault.stage, fault.subject, fault.interval.key, fault.what)
    ways = list(dict.fromkeys(fault.way_out for fault in report.faults))
    return [wrong, totals + f"{len(report.faults)} faults", "What to do:", *ways]


def upkeep(kept: Upkeep) -> list[str]:
    """A line for each thing that expired or was pruned, and one with the totals."""
    return [
        *(f"expired {each}" for each in kept.expired),
        *(
            f"pruned {changes:,} captured changes of {table} in the shop's database"
            for table, changes in kept.pruned.items()
        ),
        f"{kept.shop}: {len(kept.expired)} expired, {kept.merged} files of {kept.compacted} "
        f"partitions merged, {kept.vacuumed} files deleted",
    ]


def forgot(done: Forgot) -> list[str]:
    """A line for each table that rows were erased from, and what follows for the models."""
    erased = {table: rows for table, rows in sorted(done.rows.items()) if rows}
    numbers = ", ".join(map(str, done.versions))
    return [
        *(f"erased {rows:,} rows of {table}" for table, rows in erased.items()),
        f"{done.shop}: {sum(erased.values()):,} rows of {len(erased)} tables erased, and "
        f"{done.copies:,} files of the backup deleted",
        f"learned from the shopper: version {numbers}; while one of them is champion, the next run "
        "trains a new model on what is left"
        if done.versions
        else "no registered version learned from the shopper",
    ]
