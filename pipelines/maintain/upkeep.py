"""Keeping the lake small: expiry by the declared retention, compaction, vacuum.

Safe beside a running update: a partition is touched under the lock of the stage that writes it,
or, for tables written without one, by a commit that either side repeats when it comes second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pipelines.shared.columns import EXPIRED
from pipelines.shared.run import Installation

Track = Callable[[Sequence[str]], Iterable[str]]

_LOCKED_BY: Final = {"changes": "extract", "valid": "validate", "quarantine": "validate"}
_STATE: Final = (
    "events", "items", "periods", "shoppers", "vocabulary", "shown", "open_groups",
    "factors_shoppers", "factors_items",
)  # fmt: skip
_OF_SURFACE: Final = ("groups", "group_index", "serving", "scores")


@dataclass(frozen=True)
class Upkeep:
    """The result of one round of maintenance."""

    shop: str
    expired: tuple[str, ...]
    """`<table> <interval>` of each partition emptied, and each page removed."""
    compacted: int
    """Partitions whose small files were merged."""
    merged: int
    """Files merged."""
    vacuumed: int
    """Files deleted that no version of the last week needs."""
    pruned: dict[str, int]
    """Table → captured changes deleted from the shop's own database."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return asdict(self) | {"expired": list(self.expired)}


def tables(installation: Installation) -> list[str]:
    """Every table that a shop's lake can hold."""
    shop = installation.shop
    return [
        *(f"{part}/{table}" for part in _LOCKED_BY for table in shop.tables),
        *(f"state/{name}" for name in _STATE),
        *(f"{name}/{shop.surface.name}" for name in _OF_SURFACE),
    ]


def run(installation: Installation, track: Track = iter) -> Upkeep:
    """Expire, compact and vacuum every table of a shop, and prune what triggers captured.

    A rerun finds nothing left to do.

    Args:
        track: wraps the tables as they are worked on, to show progress.

    Raises:
        CorruptPartition: a table's log is damaged.
        LedgerUnavailable: the ledger does not answer.
        CaptureMissing, SourceUnavailable: see `extract.prune`; the lake is done by then.
    """
    expired = tuple(_expire(installation))
    compacted = merged = vacuumed = 0
    for table in track(tables(installation)):
        for key in installation.lake.fragmented(table):
            with lock(installation, table):
                merged += installation.lake.compact(table, key)
            compacted += 1
        vacuumed += installation.lake.vacuum(table)
    pruned = _prune(installation)
    return Upkeep(installation.shop.shop, expired, compacted, merged, vacuumed, pruned)


def _prune(installation: Installation) -> dict[str, int]:
    days, end = installation.shop.retention.captured_days, _extracted_until(installation)
    if days is None or end is None:
        return {}
    from pipelines import extract

    return extract.prune(installation, end - timedelta(days=days))


def _extracted_until(installation: Installation) -> datetime | None:
    """The end of the last extracted interval."""
    extracted = installation.ledger.manifests("extract")
    return max((each.interval.end for each in extracted), default=None)


def lock(installation: Installation, table: str) -> AbstractContextManager[Any]:
    """The lock under which a table of the lake is written, where there is one."""
    part, _, name = table.partition("/")
    stage = _LOCKED_BY.get(part)
    return installation.ledger.lock(f"{stage}/{name}") if stage else nullcontext()


def _expire(installation: Installation) -> Iterator[str]:
    retention = installation.shop.retention
    if (end := _extracted_until(installation)) is None:
        return
    for part, days in (
        ("changes", retention.changes_days),
        ("quarantine", retention.quarantine_days),
    ):
        if days is not None:
            for table in installation.shop.tables:
                yield from _expire_table(installation, part, table, end - timedelta(days=days))
    if retention.docs_days is not None:
        yield from _expire_docs(installation, end - timedelta(days=retention.docs_days))


def _expire_table(
    installation: Installation, part: str, table: str, until: datetime
) -> Iterator[str]:
    """Empty the partitions of intervals that ended by a time and were validated.

    The manifests are marked first: a kill in between leaves rows that the next round removes, never
    a gap that looks like damage.
    """
    lake, ledger, stage = installation.lake, installation.ledger, _LOCKED_BY[part]
    name = f"{part}/{table}"
    with lock(installation, name) as held:
        validated = {each.interval for each in ledger.manifests("validate", table)}
        for manifest in ledger.manifests(stage, table):
            if manifest.interval.end <= until and manifest.interval in validated:
                details = dict(manifest.details) | {EXPIRED: part}
                ledger.record(replace(manifest, details=details), held)
    with lock(installation, name):
        present = set(lake.intervals(name))
        standing = ledger.manifests(stage, table)
        expired = [each.interval.key for each in standing if EXPIRED in each.details]
        removed = [key for key in expired if key in present]
        lake.remove(name, removed)
    yield from (f"{name} {key}" for key in removed)


def _expire_docs(installation: Installation, until: datetime) -> Iterator[str]:
    """Remove validation's pages of intervals that ended by a time."""
    from pipelines.validate.docs import data_docs

    root = installation.lake.local_root
    for manifest in installation.ledger.manifests("validate"):
        page = data_docs(root, manifest.subject, manifest.interval)
        if manifest.interval.end <= until and page.is_file():
            page.unlink()
            yield str(page.relative_to(root))
