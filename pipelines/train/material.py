"""What a strategy learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.shared.declaration import Gate, Learning
from pipelines.shared.run import Run
from pipelines.train.data.examples import Examples
from pipelines.train.models import boosting, parameters
from pipelines.train.models.boosting import Leaves
from pipelines.train.trainers.job import Progress, silent


@dataclass(frozen=True)
class Material:
    """A parent, groups and the shop's rules; what only some strategies ask for is read then."""

    learning: Learning
    gate: Gate
    threads: int
    new: Examples
    """Groups that the parent has not learned; all groups of a first model."""
    parent: str | None = None
    """The parent's model text."""
    span: int = 1
    """How many intervals the new groups cover."""
    window: Callable[[], Examples] | None = None
    """Reads the bounded window that a new model learns; None where it is the new groups."""
    past: Callable[[], Examples] | None = None
    """Reads a sample of the groups that the parent has learned."""
    progress: Progress = silent

    @classmethod
    def of(cls, run: Run, new: Examples, parent: str | None = None, **others: Any) -> Material:
        """Material under the rules of a run's shop."""
        shop = run.shop
        return cls(shop.learning, shop.gate, run.settings.threads, new, parent, **others)

    @cached_property
    def leaves(self) -> Leaves:
        """The parent's leaves that the new rows fall into."""
        return boosting.leaves(self.require_parent(), self.new.features, self.threads)

    def params(self, examples: Examples, **changed: Any) -> dict[str, Any]:
        """LightGBM's parameters for some examples, with some of them changed."""
        names = examples.features.column_names
        own = parameters.parameters(self.learning, names, examples.rows, self.threads)
        return own | changed

    def require_parent(self) -> str:
        """The parent's model text.

        Raises:
            ValueError: there is none.
        """
        if self.parent is None:
            raise ValueError("this strategy continues a parent, and there is none")
        return self.parent
