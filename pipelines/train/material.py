"""What a run learns from: each part is read from the lake when a strategy asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run
from pipelines.train import plan
from pipelines.train.data import groups, replay
from pipelines.train.data.examples import Examples
from pipelines.train.data.groups import Catalogue, Selection
from pipelines.train.models import boosting
from pipelines.train.models.boosting import Leaves, Say
from pipelines.train.plan import Parent
from pipelines.train.strategies import STRATEGIES, Material, Rules
from pipelines.train.trainers.local import Local, Trainer
from pipelines.train.trainers.ray import OnRay


@dataclass(frozen=True)
class Data:
    """One run's groups, features and parent."""

    run: Run
    catalogue: Catalogue
    codes: dict[str, dict[str, int]]
    steps: list[Manifest]
    parent: Parent | None
    selection: Selection
    """The new groups."""
    say: Say

    @cached_property
    def rules(self) -> Rules:
        """What every strategy keeps to."""
        shop, settings = self.run.shop, self.run.settings
        return Rules(
            self.catalogue.categorical, shop.learning, shop.gate, settings.threads,
            _trainer(self.run), self.say,
        )  # fmt: skip

    @cached_property
    def new(self) -> Examples:
        """The new groups."""
        return groups.load(self.run, self.selection, self.catalogue)

    @cached_property
    def window(self) -> Selection:
        """The bounded window of a first or compacted model, the new groups among its own."""
        return groups.select(self.run, plan.window(self.run, self.steps), None, plan.cut(self.run))

    @cached_property
    def past(self) -> Selection:
        """The replay sample: of what the parent may have learned."""
        learning, until = self.run.shop.learning, plan.cut(self.run)
        since = self.parent.version.trained_through if self.parent else until
        window = groups.select(self.run, plan.window(self.run, self.steps), None, since)
        return replay.sample(
            window,
            round(learning.replay_ratio * self.new.groups),
            until,
            learning.replay_half_life * self.run.shop.grid.step,
            learning.seed,
        )

    @cached_property
    def leaves(self) -> Leaves:
        """The parent's leaves that the new rows fall into."""
        if self.parent is None:
            raise ValueError("without a parent there are no leaves to fall into")
        return boosting.fallen_into(self.parent.text, self.new.features, self.run.settings.threads)

    @property
    def span(self) -> int:
        """How many intervals the new groups cover."""
        if self.parent is None:
            return 1
        covered = plan.cut(self.run) - self.parent.version.trained_through
        return max(1, round(covered / self.run.shop.grid.step))

    def material(self, name: str) -> Material:
        """What a strategy learns from."""
        learns = STRATEGIES[name].learns
        whole = learns == "window" and self.parent is not None
        return Material(
            self.rules,
            groups.load(self.run, self.window, self.catalogue) if whole else self.new,
            self.parent.text if self.parent else None,
            groups.load(self.run, self.past, self.catalogue) if learns == "replay" else None,
            self.span,
            self.leaves if learns == "new" and self.parent else None,
        )


def _trainer(run: Run) -> Trainer:
    learning = run.shop.learning
    return OnRay(learning.workers) if learning.trainer == "ray" else Local()
