"""Every strategy is a pure function; of rivals one is chosen, and nothing is lost by choosing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.shared.declaration import Gate
from pipelines.train import drift, plan, preselection, strategies
from pipelines.train.data import groups
from pipelines.train.data.groups import Catalogue
from pipelines.train.models import boosting, parameters, trees
from pipelines.train.strategies import STRATEGIES, Material, Rules
from tests.train.baskets import CATEGORICAL, FEATURES, Installation, interval


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, real_baskets: Any) -> Material:
    """A parent of weeks 0 to 3, the new groups of week 4, and what the parent learned."""
    shop = Installation.at(tmp_path_factory.mktemp("strategies"), real_baskets)
    run = shop.run(0, 8)

    def read(first: int, last: int) -> groups.Examples:
        edges = interval(first).start, interval(last).end
        selected = groups.select(run, plan.steps(run), *edges)
        return groups.load(run, selected, Catalogue(FEATURES, CATEGORICAL))

    rules = Rules(CATEGORICAL, run.shop.learning, run.shop.gate, threads=2)
    old = read(0, 3)
    parent = strategies.compact(Material(rules, old)).text
    return Material(rules, read(4, 4), parent, old)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_material_gives_the_same_model_within_the_budgets(
    material: Material, name: str
) -> None:
    grown = STRATEGIES[name].grow(material)
    assert STRATEGIES[name].grow(material).text == grown.text
    assert grown.trees == trees.count(grown.text) > 0
    assert "[num_threads: 0]" in grown.text
    narrow = Gate(max_trees=40, max_megabytes=0.1)
    small = STRATEGIES[name].grow(replace(material, rules=replace(material.rules, gate=narrow)))
    assert small.trees <= 40
    assert len(small.text.encode()) <= 100_000


@pytest.mark.parametrize(("span", "more"), [(1, 3), (4, 12), (9, 20)])
def test_several_intervals_move_the_leaves_as_often(
    material: Material, span: int, more: int
) -> None:
    grown = STRATEGIES["refit_boost"].grow(replace(material, span=span))
    assert grown.trees == parameters.COMPACT_ROUNDS + more
    assert grown.params["refit_decay_rate"] == pytest.approx(0.95**span)


def test_a_blend_is_the_mean_of_a_new_model_and_the_newest_in_the_parent(
    material: Material,
) -> None:
    rows, size = material.new.features, parameters.COMPACT_ROUNDS
    parent = STRATEGIES["refit_boost"].grow(material).text
    for _ in range(2):
        grown = STRATEGIES["blend"].grow(replace(material, parent=parent))
        assert grown.trees == parameters.BLENDED_TREES == 2 * size
        new = trees.leading(grown.text, size)
        mean = (
            boosting.scores(new, rows, 2)
            + boosting.scores(trees.leading(parent, size), rows, 2) / 2
        )
        assert boosting.scores(grown.text, rows, 2) == pytest.approx(mean, abs=1e-12)
        parent = grown.text
    learning = material.rules.learning.model_copy(update={"seed": grown.params["seed"]})
    rules = replace(material.rules, learning=learning)
    alone = STRATEGIES["compact"].grow(replace(material, rules=rules)).text
    assert boosting.scores(new, rows, 2) * 2 == pytest.approx(boosting.scores(alone, rows, 2))


def test_the_mean_of_a_model_with_itself_scores_as_it_does(material: Material) -> None:
    """Categories, the last tree's too, and the rate by which refitting scales survive."""
    assert material.parent is not None
    assert "cat_threshold=" in material.parent
    twice = trees.mean(material.parent, material.parent, 500)
    assert trees.count(twice) == 2 * trees.count(material.parent)
    rows = material.new.features
    own = boosting.scores(material.parent, rows, 2)
    assert boosting.scores(twice, rows, 2) == pytest.approx(own, abs=1e-12)
    assert f"shrinkage={parameters.COMPACT_RATE / 2:g}\n" in twice
    assert f"shrinkage={parameters.COMPACT_RATE:g}\n" not in twice


def test_what_continues_a_parent_wants_one(material: Material) -> None:
    with pytest.raises(ValueError, match="continues a parent, and there is none"):
        STRATEGIES["refit_boost"].grow(replace(material, parent=None))


def test_of_rivals_the_better_one_on_groups_that_none_learned_learns_them_too(
    material: Material,
) -> None:
    chosen = preselection.best(("refit_boost", "adapt"), lambda name: material)
    assert chosen.grown == STRATEGIES[chosen.name].grow(material)
    aside = parameters.aside(material.rules.learning, material.new.ids)
    kept, learned = material.new.of(aside), replace(material, new=material.new.of(~aside))
    found = {
        name: drift.ndcg(
            kept, boosting.scores(STRATEGIES[name].grow(learned).text, kept.features, 2)
        ).mean()
        for name in ("refit_boost", "adapt")
    }
    assert chosen.name == max(found, key=found.__getitem__)
    assert f"on {kept.groups} groups kept aside" in chosen.notes[0]


def test_a_monotone_feature_only_raises_the_score(material: Material) -> None:
    learning = material.rules.learning.model_copy(update={"monotone": {"own_share": 1}})
    rules = replace(material.rules, learning=learning)
    grown = STRATEGIES["replay_boost"].grow(
        replace(material, rules=rules, parent=STRATEGIES["first"].grow(
            replace(material, rules=rules)).text)
    )  # fmt: skip
    rows = material.new.features
    place = rows.column_names.index("own_share")
    last = None
    for share in (0.0, 0.1, 0.2, 0.4, 0.8):
        column = np.full(rows.num_rows, share, np.float32)
        scores = boosting.scores(grown.text, rows.set_column(place, "own_share", [column]), 2)
        assert last is None or (scores >= last - 1e-12).all()
        last = scores


def test_a_model_of_its_own_grows_with_what_it_learns_from() -> None:
    found = [parameters.first_rounds(rows) for rows in (0, 1_000_000, 2_400_000, 50_000_000)]
    assert found == [100, 100, 200, 300]
