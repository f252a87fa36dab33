"""Health and cost of earlier runs, as the ledger has them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pipelines.shared.models.challengers import STAGE
from pipelines.shared.run import Run
from pipelines.train.drift import Health

NEW_MODELS: Final = frozenset({"first", "compact", "blend"})
"""Strategies that train a new model instead of continuing one."""


@dataclass(frozen=True)
class TrainingCost:
    """Cost of a run's training and of a full retrain, in groups times trees."""

    work: float
    """Of the training. The ledger has both under these names, as `spent`."""
    full: float


@dataclass(frozen=True)
class History:
    """The runs since the first model that trained something, oldest first."""

    healths: tuple[Health, ...] = ()
    costs: tuple[TrainingCost, ...] = ()
    runs_since_new_model: int = 0
    """Promoted or not."""

    def after(
        self, strategies: Collection[str], health: Health | None, cost: TrainingCost | None
    ) -> History:
        """The history with one more run, which trained a challenger by each of some strategies."""
        return History(
            (*self.healths, health) if health else self.healths,
            (*self.costs, cost) if cost else self.costs,
            0 if NEW_MODELS & set(strategies) else self.runs_since_new_model + 1,
        )


def read(run: Run) -> History:
    """The history of training for intervals that ended before the run's began."""
    history = History()
    for manifest in run.ledger.manifests(STAGE, run.shop.surface.name):
        stored = manifest.details
        if manifest.interval.end > run.interval.start or not stored["challengers"]:
            continue
        health, cost = stored.get("health"), stored.get("spent")
        history = history.after(
            [each["strategy"] for each in stored["challengers"]],
            Health(**health) if health else None,
            TrainingCost(**cost) if cost else None,
        )
    return history
