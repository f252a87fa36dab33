"""Where trees are grown: on this machine, or on Ray's workers (`train/ray_trainer.py`)."""

from __future__ import annotations

from typing import Any, Protocol

from pipelines.train.data.examples import Examples
from pipelines.train.models import boosting
from pipelines.train.models.boosting import Binned, Leaves, Say


class Trainer(Protocol):
    """Grows trees on examples; the text depends on its arguments alone."""

    def grow(
        self,
        examples: Examples,
        categorical: tuple[str, ...],
        params: dict[str, Any],
        parent: str | None,
        rounds: int,
        say: Say,
    ) -> str:
        """A new model, or the parent's trees and further ones; `rounds` of 0 is the parent."""

    def refit(
        self,
        examples: Examples,
        categorical: tuple[str, ...],
        params: dict[str, Any],
        parent: str,
        decay: float,
        rounds: int,
        say: Say,
        leaves: Leaves | None,
    ) -> str:
        """The parent with its leaves moved, and further trees."""


class Local:
    """This machine, in this process."""

    def grow(
        self,
        examples: Examples,
        categorical: tuple[str, ...],
        params: dict[str, Any],
        parent: str | None,
        rounds: int,
        say: Say,
    ) -> str:
        """See `Trainer.grow`."""
        return Binned.of(examples, categorical, params, parent).grow(rounds, say)

    def refit(
        self,
        examples: Examples,
        categorical: tuple[str, ...],
        params: dict[str, Any],
        parent: str,
        decay: float,
        rounds: int,
        say: Say,
        leaves: Leaves | None,
    ) -> str:
        """See `Trainer.refit`."""
        return boosting.refit(parent, examples, categorical, params, decay, rounds, say, leaves)
