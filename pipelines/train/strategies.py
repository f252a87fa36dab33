"""The ways to make a challenger: each a pure function of parent, new groups, replay and rules.

| strategy | what it does | source |
|---|---|---|
| `first`, `retrain` | a new model | Burges (2010), LambdaMART |
| `refit_boost` | moves the leaf values towards the new groups, then a few trees | see below |
| `replay_boost` | trees on new groups and a faded sample of the past | Chaudhry et al. (2019) |
| `adapt` | after an abrupt change: moves the leaves far, then many trees | Gama et al. (2014) |
| `compact` | a new model on a window, in the budgets | Burges (2010) |
| `blend` | the mean of a new model on a window and the parent's first trees | Wang et al. (2003) |

Refitting keeps the structure of the trees: new leaf = decay * old + (1 - decay) * fitted, as
LightGBM's `refit` does it; trees whose thresholds last and whose leaves follow the data are the
idea of Hoeffding trees with drifting leaves (Domingos and Hulten, 2000) carried to ensembles.
A run that covers several intervals moves the leaves by the decay to the power of their number,
and adds as many times the trees: as if it had learned one interval after the other.

Burges, "From RankNet to LambdaRank to LambdaMART"; Chaudhry et al., "On tiny episodic memories in
continual learning"; Gama et al., "A survey on concept drift adaptation"; Wang, Fan, Yu and Han,
"Mining concept-drifting data streams using ensemble classifiers".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from pipelines.shared.declaration import Gate, Learning
from pipelines.train.data.examples import Examples, joined
from pipelines.train.models import boosting, trees
from pipelines.train.models import parameters as recipe
from pipelines.train.models.boosting import Leaves, Say
from pipelines.train.trainers.local import Local, Trainer


@dataclass(frozen=True)
class Grown:
    """A model and how it came to be."""

    text: str
    trees: int
    groups: int
    rows: int
    params: dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """What every strategy keeps to."""

    categorical: tuple[str, ...]
    learning: Learning
    gate: Gate
    threads: int
    trainer: Trainer = field(default_factory=Local)
    say: Say = boosting.silent

    def parameters(self, examples: Examples, **changed: Any) -> dict[str, Any]:
        """LightGBM's parameters for some examples, with some of them changed."""
        names = examples.features.column_names
        return recipe.parameters(self.learning, names, examples.rows, self.threads) | changed


@dataclass(frozen=True)
class Material:
    """What a strategy learns from."""

    rules: Rules
    new: Examples
    """Groups that the parent has not learned; of a window strategy, all of the window."""
    parent: str | None = None
    """The parent's model text."""
    replay: Examples | None = None
    """Some groups that it has learned, weighted by age."""
    span: int = 1
    """How many intervals the new groups cover."""
    leaves: Leaves | None = None
    """The parent's leaves that the new rows fall into, where that is known."""

    def require_parent(self) -> str:
        """The parent's model text.

        Raises:
            ValueError: there is none.
        """
        if self.parent is None:
            raise ValueError("this strategy continues a parent, and there is none")
        return self.parent


Grow = Callable[[Material], Grown]


def fresh(material: Material) -> Grown:
    """A model of its own, within the budgets."""
    rules = material.rules
    rounds = min(recipe.first_rounds(material.new.rows), rules.gate.max_trees)
    return _continued(material, material.new, None, rounds, {})


def compact(material: Material) -> Grown:
    """A smaller model of its own: fewer trees that learn faster, for less than half of the cost."""
    return _grown_anew(material, seed=material.rules.learning.seed)


def refit_boost(material: Material) -> Grown:
    """Move a model's leaf values towards the new groups, then continue it by a few trees."""
    learning = material.rules.learning
    decay = learning.refit_decay**material.span
    rounds = recipe.rounds(learning, material.span)
    return _moved(material, decay, rounds, learning.learning_rate)


def replay_boost(material: Material) -> Grown:
    """Continue a model on the new groups and a sample of the past, faded by age."""
    learning = material.rules.learning
    rate = {"learning_rate": learning.learning_rate}
    rounds = recipe.rounds(learning, material.span)
    return _continued(material, _mixed(material), material.require_parent(), rounds, rate)


def adapt(material: Material) -> Grown:
    """Move the leaves far towards the new groups alone, then add many trees."""
    return _moved(material, recipe.ADAPT_DECAY, recipe.ADAPT_ROUNDS, recipe.ADAPT_RATE)


def blend(material: Material) -> Grown:
    """Average a new model on the window with the newest one in the parent.

    What one model learned by chance the other did not, the less so as they draw their features by
    other seeds: their mean ranks better than either. The new trees come first, so the parent's
    first are those of its newest model; its older ones, and the few added since, are cut off.
    """
    parent, gate = material.require_parent(), material.rules.gate
    grown = _grown_anew(material, seed=zlib.crc32(parent.encode()) >> 1)
    mean = trees.mean(grown.text, parent, min(recipe.BLENDED_TREES, gate.max_trees))
    kept = trees.within(mean, gate)
    return replace(grown, text=kept, trees=trees.count(kept))


def _mixed(material: Material) -> Examples:
    replay = material.replay
    return joined([material.new, replay]) if replay and replay.groups else material.new


def _grown_anew(material: Material, seed: int) -> Grown:
    rounds = min(recipe.COMPACT_ROUNDS, material.rules.gate.max_trees)
    changed = {"learning_rate": recipe.COMPACT_RATE, "seed": seed}
    return _continued(material, material.new, None, rounds, changed)


def _continued(
    material: Material,
    examples: Examples,
    parent: str | None,
    rounds: int,
    changed: dict[str, Any],
) -> Grown:
    rules = material.rules
    params = rules.parameters(examples, **changed)
    model = rules.trainer.grow(examples, rules.categorical, params, parent, rounds, rules.say)
    return _grown(material, model, examples, params)


def _moved(material: Material, decay: float, rounds: int, rate: float) -> Grown:
    rules, new = material.rules, material.new
    params = rules.parameters(new, learning_rate=rate)
    parent = material.require_parent()
    model = rules.trainer.refit(
        new, rules.categorical, params, parent, decay, rounds, rules.say, material.leaves
    )
    return _grown(material, model, new, params | {"refit_decay_rate": decay})


def _grown(material: Material, model: str, examples: Examples, params: dict[str, Any]) -> Grown:
    kept = trees.within(model, material.rules.gate)
    told = {name: value for name, value in params.items() if name != "num_threads"}
    return Grown(kept, trees.count(kept), examples.groups, examples.rows, told)


@dataclass(frozen=True)
class Strategy:
    """A way to make a challenger, and what it needs."""

    grow: Grow
    learns: Literal["new", "replay", "window"]
    """The new groups alone; with a sample of the past; or all groups of a bounded window."""


STRATEGIES: Final = {
    "first": Strategy(fresh, "window"),
    "refit_boost": Strategy(refit_boost, "new"),
    "replay_boost": Strategy(replay_boost, "replay"),
    "adapt": Strategy(adapt, "new"),
    "compact": Strategy(compact, "window"),
    "blend": Strategy(blend, "window"),
}
