"""The lake against the ledger: what every manifest records is read and hashed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.maintain.checks import STAGES, wrong
from pipelines.shared.columns import EXPIRED
from pipelines.shared.errors import CorruptPartition
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Installation

Track = Callable[[Sequence[Manifest]], Iterable[Manifest]]
_OF_TABLES = ("extract", "validate")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and the way out."""

    stage: str
    subject: str
    """The table; of later stages than `validate` the ranking surface."""
    interval: Interval
    what: str
    way_out: str

    def as_dict(self) -> dict[str, str]:
        """As plain JSON-able values."""
        edges = {name: f"{getattr(self.interval, name):%FT%TZ}" for name in ("start", "end")}
        return asdict(self) | {"interval": self.interval.key} | edges


@dataclass(frozen=True)
class Report:
    """The result of a verification."""

    shop: str
    checked: int
    """Number of manifests verified."""
    rows: int
    """Number of extracted changes on record in them."""
    expired: int
    """Number of manifests of which the declared retention removed a partition."""
    faults: tuple[Fault, ...]

    def required(self) -> Report:
        """This report, if nothing is wrong.

        Raises:
            CorruptPartition: something is; names every fault and its way out.
        """
        if self.faults:
            raise CorruptPartition(
                "\n".join(
                    f"{fault.stage} {fault.subject} {fault.interval}: {fault.what}; {fault.way_out}"
                    for fault in self.faults
                )
            )
        return self

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return asdict(self) | {"faults": [fault.as_dict() for fault in self.faults]}


def verify(
    installation: Installation,
    interval: Interval | None = None,
    table: str | None = None,
    track: Track = iter,
) -> Report:
    """Compare every manifest with the lake: changes, pages, state, groups, models, scores, serving.

    One partition at a time is in memory.

    Args:
        interval: only manifests of intervals that lie inside.
        table: only this source table; leaves out what no table alone makes.
        track: wraps the manifests as they are verified, to show progress.

    Raises:
        DeclarationError: the table is not declared.
        LedgerUnavailable: the ledger does not answer.
    """
    if table is not None:
        installation.shop.require_table(table)
    known = [each for stage in STAGES for each in installation.ledger.manifests(stage)]
    wanted = [
        each
        for each in known
        if (table is None or (each.stage in _OF_TABLES and each.subject == table))
        and (interval is None or _inside(each.interval, interval))
    ]
    extracted = {(each.subject, each.interval): each for each in known if each.stage == "extract"}
    faults = [
        Fault(each.stage, each.subject, each.interval, what, _way_out(installation, each))
        for each in track(wanted)
        for what in wrong(installation, each, extracted.get((each.subject, each.interval)))
    ]
    return Report(
        installation.shop.shop,
        len(wanted),
        sum(each.counts["rows"] for each in wanted if each.stage == "extract"),
        sum(EXPIRED in each.details for each in wanted),
        tuple(faults),
    )


def _inside(inner: Interval, outer: Interval) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def _way_out(installation: Installation, manifest: Manifest) -> str:
    shop, interval = installation.shop, manifest.interval
    where = f" --table {manifest.subject}" if manifest.stage in _OF_TABLES else ""
    again = (
        f"python -m pipelines verify --repair --shop {shop.shop} --start {interval.start:%FT%TZ} "
        f"--end {interval.end:%FT%TZ}{where}"
    )
    source = {
        "extract": "takes the same changes from the source again, where it still has them",
        "validate": "validates the interval again",
        "features": "folds the interval's changes and builds its groups again",
        "serve": "describes the shoppers at the interval's end again",
        "train": "trains the interval again, which gives the same model from the same groups",
        "evaluate": "scores the interval's challengers again",
    }[manifest.stage]
    return f"`{again}` {source}; else restore what is damaged from a backup of the lake"
