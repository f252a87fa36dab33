"""The records of the ledger, and the champion as a function of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pipelines.shared.intervals import Interval

Outcome = Literal["promote", "reject"]


@dataclass(frozen=True)
class Manifest:
    """What a stage made durable for one interval."""

    stage: str
    subject: str
    interval: Interval
    counts: Mapping[str, int]
    content_hash: str
    position: Mapping[str, Any] = field(default_factory=dict)
    """The source position after the interval; of extract only."""
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    version: int
    interval: Interval
    strategy: str
    parent: int | None
    trained_through: datetime
    trees: int
    artifact: str
    """Path of the model text inside the shop's part of the lake."""
    content_hash: str


@dataclass(frozen=True)
class Decision:
    """What was decided on an interval's challengers."""

    interval: Interval
    outcome: Outcome
    compared_with: int | None
    """The champion the challenger was compared with."""
    promoted: int | None
    """The version that became champion; None unless promoted."""
    reasons: tuple[str, ...]
    evaluation: Mapping[str, Any]


@dataclass(frozen=True)
class Forgetting:
    """That forgetting a shopper began, or that nothing of them is left."""

    person: str
    """Keyed hash of the shopper's id; see `pipelines.shared.forgotten`."""
    key_check: str
    """Tells the hash's key from others, and nothing else about it."""
    event: Literal["begun", "erased"]
    actor: str
    """Who asked for it."""
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


def champion_of(decisions: list[Decision], before: datetime | None = None) -> int | None:
    """The champion as a pure function of the decisions.

    Args:
        decisions: any order.
        before: only decisions on intervals that ended at or before this time count.

    Returns:
        The version promoted by the latest interval, or None.
    """
    promotions = [
        decision
        for decision in decisions
        if decision.promoted is not None and (before is None or decision.interval.end <= before)
    ]
    latest = max(promotions, key=lambda decision: decision.interval.end, default=None)
    return latest.promoted if latest else None
