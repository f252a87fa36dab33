"""One run's groups, features and parent, each part read from the lake when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipelines.shared.ledger import Manifest
from pipelines.shared.models import vocabulary
from pipelines.shared.run import Run
from pipelines.train import plan
from pipelines.train.data import groups, replay
from pipelines.train.data.groups import Catalogue, Selection
from pipelines.train.material import Material
from pipelines.train.plan import Parent
from pipelines.train.trainers.job import Progress, silent


@dataclass(frozen=True)
class RunData:
    """What a run may learn from, and what it continues."""

    run: Run
    steps: list[Manifest]
    """See `plan.steps`; at least one."""
    parent: Parent | None
    selection: Selection
    """The new groups."""
    progress: Progress = silent

    @property
    def catalogue(self) -> Catalogue:
        """Today's features."""
        return Catalogue.of(self.steps[-1])

    @cached_property
    def codes(self) -> dict[str, dict[str, int]]:
        """The stored codes of the categorical features, as known at the run's end."""
        known = vocabulary.read(self.run.lake, self.run.interval.end)
        return {name: known.get(name, {}) for name in self.catalogue.categorical}

    @cached_property
    def material(self) -> Material:
        """What strategies learn from."""
        return Material.of(
            self.run,
            groups.load(self.run, self.selection, self.catalogue),
            self.parent.text if self.parent else None,
            span=self.span,
            window=lambda: groups.load(self.run, self.window, self.catalogue),
            past=lambda: groups.load(self.run, self.past, self.catalogue),
            progress=self.progress,
        )

    @cached_property
    def window(self) -> Selection:
        """The bounded window of a compacted model, the new groups among its own."""
        return groups.select(self.run, plan.window(self.run, self.steps), None, plan.cut(self.run))

    @cached_property
    def past(self) -> Selection:
        """The replay sample: of what the parent may have learned."""
        learning, until = self.run.shop.learning, plan.cut(self.run)
        since = self.parent.version.trained_through if self.parent else until
        window = groups.select(self.run, plan.window(self.run, self.steps), None, since)
        return replay.sample(
            window,
            round(learning.replay_ratio * self.material.new.groups),
            until,
            learning.replay_half_life * self.run.shop.grid.step,
            learning.seed,
        )

    @property
    def span(self) -> int:
        """How many intervals the new groups cover."""
        if self.parent is None:
            return 1
        covered = plan.cut(self.run) - self.parent.version.trained_through
        return max(1, round(covered / self.run.shop.grid.step))
