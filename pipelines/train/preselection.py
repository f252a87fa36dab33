"""One challenger goes to the gate: the best of several, on groups that the gate does not use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.shared import hashing
from pipelines.shared.declaration import Learning
from pipelines.train import drift
from pipelines.train.material import Material
from pipelines.train.models import boosting
from pipelines.train.strategies import STRATEGIES

HOLDOUT_SHARE: Final = 0.3


def best(names: Sequence[str], material: Material) -> tuple[str, tuple[str, ...]]:
    """Choose a strategy: the candidates learn most of the new groups, and the rest compares them.

    The chosen strategy is then to be trained on all new groups, so that nothing is lost. The usual
    one is named first: it wins ties. Several must all learn the new groups. Returns the best, and a
    note on the comparison if there was one.
    """
    usual, new = names[0], material.new
    if len(names) == 1:
        return usual, ()
    held = holdout(material.learning, new.ids)
    if not held.any() or held.all():
        return usual, ()
    kept, learned = new.of(held), replace(material, new=new.of(~held))
    values = {}
    for name in names:
        model = STRATEGIES[name](learned)
        scores = boosting.scores(model.text, kept.features, material.threads)
        values[name] = float(drift.ndcg(kept, scores).mean())
    name = max(names, key=values.__getitem__)
    compared = ", ".join(f"{each} {value:.4f}" for each, value in values.items())
    return name, (f"{name}, by NDCG@10 on {kept.groups} held-out new groups: {compared}",)


def holdout(learning: Learning, ids: Any) -> npt.NDArray[np.bool_]:
    """Which of g new groups compare the candidates, by a hash of their ids."""
    return hashing.draw(f"aside/{learning.seed}", ids) < HOLDOUT_SHARE
