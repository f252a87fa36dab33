"""What training hands to evaluation: a reference to each challenger, kept in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

from pipelines.shared.intervals import Interval, utc
from pipelines.shared.ledger import Ledger

STAGE: Final = "train"


@dataclass(frozen=True)
class Challenger:
    """A trained model on trial, not yet registered."""

    strategy: str
    artifact: str
    """Path of the model text below the shop's part of the lake; its card lies beside it."""
    parent: int | None
    """The version it continues from, or would replace; None for a first model."""
    trained_through: datetime
    """The cut: it may have learned from any group that matured before."""
    trees: int
    content_hash: str
    """SHA-256 of the model text."""
    groups: int
    """Groups it learned from in this run."""
    rows: int
    """Candidates of these groups, after the negatives were thinned."""
    forced: bool = False
    """Nothing could be continued: it need only be no worse than the champion (law 9)."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Trained:
    """What training made of a run's interval."""

    surface: str
    cut: datetime
    trained_from: datetime | None
    """Groups that matured in `[trained_from, cut)` were new; None where nothing was looked at."""
    parent: int | None
    challengers: tuple[Challenger, ...] = ()
    reason: str | None = None
    """Why nothing was trained; None otherwise."""
    notes: tuple[str, ...] = ()
    """What was done otherwise than usual, and why."""
    groups: int = 0
    """New groups to learn from: mature, outside the memory holdout, with a relevant candidate."""
    without_relevant: int = 0
    """Mature groups that teach no order, because no candidate was relevant."""
    one_grade: int = 0
    """New groups that teach no order, because all candidates that were kept had one grade."""
    health: dict[str, Any] | None = None
    """How the parent fared on the new groups: `ndcg_at_10`, `error`, `groups`; None without."""
    replay: str | None = None
    """What names the sample of the past that was learned once more; None without."""
    spent: dict[str, float] | None = None
    """`work` of the training and of a `full` retrain, in groups times trees; None without."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        plain = asdict(self)
        plain["cut"] = self.cut.isoformat()
        plain["trained_from"] = self.trained_from.isoformat() if self.trained_from else None
        plain["notes"] = list(self.notes)
        plain["challengers"] = [
            asdict(each) | {"trained_through": each.trained_through.isoformat()}
            for each in self.challengers
        ]
        return plain

    def details(self) -> dict[str, Any]:
        """What the ledger keeps: `as_dict` without what differs from one rerun to the next."""
        plain = self.as_dict()
        for challenger in plain["challengers"]:
            del challenger["seconds"]
        return plain

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Trained:
        """The opposite of `as_dict` and of `details`."""
        challengers = tuple(
            Challenger(**(each | {"trained_through": utc(each["trained_through"])}))
            for each in plain["challengers"]
        )
        since = plain["trained_from"]
        found = cls(**(dict(plain) | {"challengers": challengers, "notes": tuple(plain["notes"])}))
        return replace(found, cut=utc(plain["cut"]), trained_from=utc(since) if since else None)


def read(ledger: Ledger, surface: str, interval: Interval) -> Trained | None:
    """What was trained for an interval, as the ledger has it; None if training never ran."""
    manifest = ledger.manifest(STAGE, surface, interval)
    return Trained.of(manifest.details) if manifest else None
