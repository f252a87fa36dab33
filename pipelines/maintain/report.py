"""Verification's report as a person reads it on a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipelines.maintain.verify import Report


def faults(report: Report) -> list[Table | str]:
    """A table of what is wrong with the way out for each, and a line that sums up."""
    expired = f", {report.expired} of them expired" if report.expired else ""
    said = f"{report.shop}: {report.checked} manifests, {report.rows:,} changes{expired}: "
    if not report.faults:
        return [said + "the lake is what the ledger says"]
    wrong = Table("stage", "of", "interval", "what is wrong", box=SIMPLE_HEAD, pad_edge=False)
    for fault in report.faults:
        wrong.add_row(fault.stage, fault.subject, fault.interval.key, fault.what)
    ways = list(dict.fromkeys(fault.way_out for fault in report.faults))
    return [wrong, said + f"{len(report.faults)} faults", "What to do:", *ways]
