"""Model texts as texts: how many trees, which of them, and how many bytes are allowed."""

from __future__ import annotations

import re
from typing import Final

from pipelines.shared.declaration import Gate
from pipelines.train.models import boosting

MEAN_WEIGHT: Final = 0.5
"""Of each of two models in their mean."""
MARK: Final = "\nTree="
"""What begins a tree in a model text."""
_END: Final = "\nend of trees"
_VALUES: Final = re.compile(r"^(leaf_value|internal_value|shrinkage)=(.*)$", re.MULTILINE)
"""What a tree adds to the score, and the rate by which refitting scales what it fits."""
_SIZES: Final = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)
"""Bytes of each tree, in the head; LightGBM reads a text without it, and writes it again."""


def count(model: str) -> int:
    """How many trees a model has."""
    return model.count(MARK)


def leading(model: str, trees: int) -> str:
    """A model of the first trees alone, at least 1, which stand for most of what it knows."""
    if count(model) <= trees:
        return model
    return boosting.text(boosting.opened(model), trees)


def within(model: str, gate: Gate) -> str:
    """The model, cut to its first trees where it passes the budget of trees or of bytes."""
    model = leading(model, gate.max_trees)
    limit = gate.max_megabytes * 1e6
    kept = count(model)
    while (size := len(model.encode())) > limit and kept > 1:
        kept = min(kept - 1, max(1, int(kept * limit / size)))
        model = leading(model, kept)
    return model


def mean(first: str, second: str, most: int) -> str:
    """The mean of two models with the same features: half the scores of each.

    The first one's trees come first, and its head stands; at least 1 and at most `most` stay.
    """
    head, own, tail = _parts(first)
    _, other, _ = _parts(second)
    whole = _SIZES.sub("", head) + _VALUES.sub(_halved, own + other) + tail
    return boosting.text(boosting.opened(whole), most)


def _parts(model: str) -> tuple[str, str, str]:
    """Head, trees and tail of a model text."""
    begin, end = model.index(MARK), model.index(_END)
    return model[:begin], model[begin:end], model[end:]


def _halved(match: re.Match[str]) -> str:
    """Halves are exact in binary, so nothing is rounded."""
    return f"{match[1]}=" + " ".join(repr(float(value) * MEAN_WEIGHT) for value in match[2].split())
