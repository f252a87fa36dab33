"""The ways to make a challenger, each a function of the parent and the groups.

| strategy | what it does | source |
|---|---|---|
| `first`, `compact`, `retrain` | a new model | Burges (2010), LambdaMART |
| `boost` | a few slow trees on the new groups, after the parent's | Friedman (2001) |
| `refit_boost` | moves the leaf values towards the new groups, then a few trees | see below |

Refitting keeps the structure of the trees: new leaf = decay * old + (1 - decay) * fitted, as
LightGBM's `refit` does it; trees whose thresholds last and whose leaves follow the data are the
idea of Hoeffding trees with drifting leaves (Domingos and Hulten, 2000) carried to ensembles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipelines.shared import booster, hashing
from pipelines.shared.declaration import Gate, Learning
from pipelines.train import recipe
from pipelines.train.groups import Examples

_THREADS: Final = re.compile(r"^\[num_threads: \d+\]$", re.MULTILINE)


@dataclass(frozen=True)
class Grown:
    """A model and how it came to be."""

    text: str
    trees: int
    groups: int
    rows: int
    params: dict[str, Any]
    curve: tuple[float, ...]
    """NDCG@10 of the groups kept aside, a value a round; empty without such groups."""


@dataclass(frozen=True)
class Ground:
    """What a strategy learns from and must keep to."""

    examples: Examples
    categorical: tuple[str, ...]
    learning: Learning
    gate: Gate
    threads: int

    def split(self) -> tuple[Examples, Examples]:
        """The groups to learn from, and those that only draw the learning curve."""
        draws = hashing.draw(f"curve/{self.learning.seed}", self.examples.ids)
        aside = draws < recipe.CURVE_SHARE
        return self.examples.of(~aside), self.examples.of(aside)


def fresh(ground: Ground) -> Grown:
    """A model of its own, within the budgets."""
    rounds = min(recipe.FIRST_ROUNDS, ground.gate.max_trees)
    return _grow(ground, None, rounds, {})


def boost(parent: Path, ground: Ground) -> Grown:
    """Continue a model by a few slow trees."""
    rate = {"learning_rate": recipe.BOOST_RATE}
    return _grow(ground, _load(parent), recipe.BOOST_ROUNDS, rate)


def refit_boost(parent: Path, ground: Ground) -> Grown:
    """Move a model's leaf values towards the new groups, then continue it by a few trees."""
    learned, _ = ground.split()
    params = recipe.parameters(ground.learning, learned.rows, ground.threads)
    # Which features are categorical stands in the parent's text; `refit` refuses to hear it again.
    moved = _load(parent).refit(
        learned.features,
        learned.labels,
        group=learned.sizes,
        decay_rate=recipe.REFIT_DECAY,
        dataset_params=params,
        num_threads=ground.threads,
    )
    return _grow(ground, moved, recipe.REFIT_ROUNDS, {"learning_rate": recipe.REFIT_RATE})


def _load(parent: Path) -> Any:
    return booster.lightgbm().Booster(model_file=str(parent))


def _grow(ground: Ground, init: Any, rounds: int, changed: dict[str, Any]) -> Grown:
    """Train `rounds` further trees.

    Args:
        init: the booster to continue, or None.
        changed: parameters other than the recipe's.
    """
    lgb = booster.lightgbm()

    learned, aside = ground.split()
    params = recipe.parameters(ground.learning, learned.rows, ground.threads) | changed
    categorical = list(ground.categorical)

    def dataset(examples: Examples, reference: Any = None) -> Any:
        return lgb.Dataset(
            examples.features,
            examples.labels,
            group=examples.sizes,
            categorical_feature=categorical,
            reference=reference,
            params=params,
            free_raw_data=False,
        )

    data = dataset(learned)
    curve: dict[str, dict[str, list[float]]] = {}
    watched = (
        {
            "valid_sets": [dataset(aside, data)],
            "valid_names": ["aside"],
            "callbacks": [lgb.record_evaluation(curve)],
        }
        if aside.groups
        else {}
    )
    trained = lgb.train(params, data, rounds, init_model=init, **watched)
    text = _within(trained, ground.gate)
    return Grown(
        text,
        text.count("\nTree="),
        learned.groups,
        learned.rows,
        {name: value for name, value in params.items() if name != "num_threads"},
        tuple(round(value, 6) for value in curve.get("aside", {}).get("ndcg@10", ())),
    )


def _within(trained: Any, gate: Gate) -> str:
    """The model text, without the machine's number of threads, cut to the byte budget."""
    kept = trained.num_trees()
    limit = gate.max_megabytes * 1e6
    text = _text(trained, kept)
    while len(text.encode()) > limit and kept > 1:
        kept = min(kept - 1, max(1, int(kept * limit / len(text.encode()))))
        text = _text(trained, kept)
    return text


def _text(trained: Any, trees: int) -> str:
    return _THREADS.sub("[num_threads: 0]", str(trained.model_to_string(num_iteration=trees)))
