"""What a trainer is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.train.data.examples import Examples
from pipelines.train.models.boosting import Leaves

Progress = Callable[[int, int], None]
"""Called after each round with the rounds done and the rounds wanted."""


def silent(done: int, wanted: int) -> None:
    """Report nothing."""
    del done, wanted


@dataclass(frozen=True)
class Job:
    """Trees to be trained; the model text depends on these values and the kind of trainer alone.

    A new model without a parent; else the parent's trees, refitted where `decay` is given, and
    further ones.
    """

    examples: Examples
    params: dict[str, Any]
    """LightGBM's parameters."""
    rounds: int
    """How many trees to add."""
    parent: str | None = None
    """The model text that is continued."""
    decay: float | None = None
    """Refit the parent: how much of each leaf value stays. None keeps the leaves as they are."""
    leaves: Leaves | None = None
    """The parent's leaves of the examples, where a refit need not find them itself."""
