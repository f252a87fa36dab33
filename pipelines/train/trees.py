"""Model texts as texts: how many trees, which of them, and how many bytes are allowed."""

from __future__ import annotations

from typing import Final

from pipelines.shared import booster
from pipelines.shared.declaration import Gate
from pipelines.train import boosting

MARK: Final = "\nTree="
"""What begins a tree in a model text."""


def count(model: str) -> int:
    """How many trees a model has."""
    return model.count(MARK)


def leading(model: str, trees: int) -> str:
    """A model of the first trees alone, which stand for most of what it knows.

    Args:
        trees: at least 1.
    """
    if count(model) <= trees:
        return model
    return boosting.text(booster.lightgbm().Booster(model_str=model), trees)


def within(model: str, gate: Gate) -> str:
    """The model, cut to its first trees where it passes the budget of trees or of bytes."""
    model = leading(model, gate.max_trees)
    limit = gate.max_megabytes * 1e6
    kept = count(model)
    while (size := len(model.encode())) > limit and kept > 1:
        kept = min(kept - 1, max(1, int(kept * limit / size)))
        model = leading(model, kept)
    return model
