"""References to challengers, which training hands to evaluation through the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
    """Nothing could be continued: it must only not be worse than the champion (law 9)."""
    seconds: float = 0.0

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Challenger:
        """A challenger from plain JSON-able values."""
        return cls(**{**plain, "trained_through": utc(plain["trained_through"])})


@dataclass(frozen=True)
class Trained:
    """The result of training for an interval."""

    surface: str
    cut: datetime
    trained_from: datetime | None
    """Groups that matured in `[trained_from, cut)` were new; None where nothing was looked at."""
    parent: int | None
    challengers: tuple[Challenger, ...] = ()
    reason: str | None = None
    """Why nothing was trained; None otherwise."""
    notes: tuple[str, ...] = ()
    """Choices other than the usual, and why."""
    groups: int = 0
    """New groups to learn from: mature, outside the memory holdout, with a relevant candidate."""
    without_relevant: int = 0
    """Mature groups that teach no order, because no candidate was relevant."""
    one_grade: int = 0
    """New groups that teach no order, because all candidates that were kept had one grade."""
    health: dict[str, Any] | None = None
    """The parent on the new groups: `ndcg_at_10`, `error`, `groups`; None without."""
    replay: str | None = None
    """The name of the sample of the past that was learned again; None without."""
    spent: dict[str, float] | None = None
    """The training's cost, `work`, and a `full` retrain's, in groups times trees; None without."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
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
        """The values that the ledger keeps: `as_dict` without those that differ between reruns."""
        plain = self.as_dict()
        for challenger in plain["challengers"]:
            del challenger["seconds"]
        return plain

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Trained:
        """The opposite of `as_dict` and of `details`."""
        since = plain["trained_from"]
        return cls(
            **{
                **plain,
                "cut": utc(plain["cut"]),
                "trained_from": utc(since) if since else None,
                "challengers": tuple(map(Challenger.of, plain["challengers"])),
                "notes": tuple(plain["notes"]),
            }
        )


def read(ledger: Ledger, surface: str, interval: Interval) -> Trained | None:
    """The result of training for an interval, from the ledger; None if training never ran."""
    manifest = ledger.manifest(STAGE, surface, interval)
    return Trained.of(manifest.details) if manifest else None
