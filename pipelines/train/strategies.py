"""The strategies that make a challenger: each a pure function of its material.

| strategy | what it does | source |
|---|---|---|
| `first`, `retrain` | a new model | Burges (2010), LambdaMART |
| `refit_boost` | refits the leaf values, then adds a few trees | see below |
| `replay_boost` | trees on new groups and a decayed sample of the past | Chaudhry et al. (2019) |
| `adapt` | after an abrupt change: a strong refit, then many trees | Gama et al. (2014) |
| `compact` | a new model on a window, in the budgets | Burges (2010) |
| `blend` | half of a new model on a window, half of the parent's first trees | Wang et al. (2003) |

A refit keeps the structure of the trees: new leaf = decay * old + (1 - decay) * fitted, as
LightGBM's `refit` does it. Trees whose thresholds last and whose leaves follow the data are the
idea of Hoeffding trees with drifting leaves (Domingos and Hulten, 2000) carried to ensembles.
A run that covers several intervals refits by the decay to the power of their number, and adds as
many times the trees: as if it had learned one interval after the other.

Burges, "From RankNet to LambdaRank to LambdaMART"; Chaudhry et al., "On tiny episodic memories in
continual learning"; Gama et al., "A survey on concept drift adaptation"; Wang, Fan, Yu and Han,
"Mining concept-drifting data streams using ensemble classifiers".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from pipelines.train.data.examples import joined
from pipelines.train.material import Material
from pipelines.train.models import parameters, trees
from pipelines.train.trainers import local, ray
from pipelines.train.trainers.job import Job


@dataclass(frozen=True)
class Model:
    """A trained model and how it came to be."""

    text: str
    trees: int
    groups: int
    """Groups it learned from, and their rows."""
    rows: int
    params: dict[str, Any]


Strategy = Callable[[Material], Model]


def fresh(material: Material) -> Model:
    """Train a new model on the new groups, within the budgets."""
    new = material.new
    rounds = min(parameters.first_rounds(new.rows), material.gate.max_trees)
    return _trained(material, Job(new, material.params(new), rounds))


def compact(material: Material) -> Model:
    """Train a smaller new model: fewer trees that learn faster, for less than half of the cost."""
    return _compacted(material, seed=material.learning.seed)


def refit_boost(material: Material) -> Model:
    """Refit a model's leaf values to the new groups, then continue it by a few trees."""
    learning = material.learning
    decay = learning.refit_decay**material.span
    rounds = parameters.rounds(learning, material.span)
    return _refitted(material, decay, rounds, learning.learning_rate)


def replay_boost(material: Material) -> Model:
    """Continue a model on the new groups and a sample of the past, decayed by age."""
    learning, examples = material.learning, material.new
    if material.past and (past := material.past()).groups:
        examples = joined([examples, past])
    params = material.params(examples, learning_rate=learning.learning_rate)
    rounds = parameters.rounds(learning, material.span)
    return _trained(material, Job(examples, params, rounds, material.require_parent()))


def adapt(material: Material) -> Model:
    """Refit the leaf values strongly to the new groups, then add many trees."""
    rate = parameters.ADAPT_RATE
    return _refitted(material, parameters.ADAPT_DECAY, parameters.ADAPT_ROUNDS, rate)


def blend(material: Material) -> Model:
    """Add half the scores of a new model on the window and half those of the parent's first trees.

    What one model learned by chance the other did not, the less so as they draw their features by
    other seeds. The new model's 40 trees come first, then the parent's first, refitted since, up to
    80 trees in all; the rest of the parent is cut off. So a blend of a blend is N/2 + O/4
    of the new model N and the newest one O in the parent, which was halved before, and no mean of
    models of equal weight. A `compact` parent is kept whole, by half. A `first` one keeps its first
    40 trees, by half: of 100 it loses 60.

    The params name both weights and how many of the parent's trees are in.
    """
    parent, gate = material.require_parent(), material.gate
    model = _compacted(material, seed=zlib.crc32(parent.encode()) >> 1)
    mean = trees.mean(model.text, parent, min(parameters.BLENDED_TREES, gate.max_trees))
    kept = trees.within(mean, gate)
    weights = {
        "blend_new_weight": trees.MEAN_WEIGHT,
        "blend_parent_weight": trees.MEAN_WEIGHT,
        "blend_parent_trees": max(0, trees.count(kept) - model.trees),
    }
    return replace(model, text=kept, trees=trees.count(kept), params=model.params | weights)


STRATEGIES: Final[dict[str, Strategy]] = {
    "first": fresh,
    "refit_boost": refit_boost,
    "replay_boost": replay_boost,
    "adapt": adapt,
    "compact": compact,
    "blend": blend,
}


def _compacted(material: Material, seed: int) -> Model:
    window = material.window() if material.window else material.new
    rounds = min(parameters.COMPACT_ROUNDS, material.gate.max_trees)
    params = material.params(window, learning_rate=parameters.COMPACT_RATE, seed=seed)
    return _trained(material, Job(window, params, rounds))


def _refitted(material: Material, decay: float, rounds: int, rate: float) -> Model:
    params = material.params(material.new, learning_rate=rate)
    parent = material.require_parent()
    return _trained(material, Job(material.new, params, rounds, parent, decay, material.leaves))


def _trained(material: Material, job: Job) -> Model:
    """Train a job where the shop's rules say, and cut the model to the budgets."""
    learning, progress = material.learning, material.progress
    if learning.trainer == "ray":
        text = ray.train(job, learning.workers, progress)
    else:
        text = local.train(job, progress)
    kept = trees.within(text, material.gate)
    params = {name: value for name, value in job.params.items() if name != "num_threads"}
    if job.decay is not None:
        params["refit_decay_rate"] = job.decay
    return Model(kept, trees.count(kept), job.examples.groups, job.examples.rows, params)
