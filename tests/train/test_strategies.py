"""Every strategy is a pure function; one of several is chosen, and nothing is lost by choosing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.shared.declaration import Gate
from pipelines.train import drift, plan, preselection, strategies
from pipelines.train.data import groups
from pipelines.train.data.groups import Catalogue
from pipelines.train.material import Material
from pipelines.train.models import boosting, parameters, trees
from pipelines.train.strategies import STRATEGIES
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

    old = read(0, 3)
    parent = strategies.compact(Material.of(run, old)).text
    return Material.of(run, read(4, 4), parent, window=lambda: read(0, 4), past=lambda: old)


def _learning(material: Material, **changed: Any) -> Material:
    return replace(material, learning=material.learning.model_copy(update=changed))


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_material_gives_the_same_model_within_the_budgets(
    material: Material, name: str
) -> None:
    model = STRATEGIES[name](material)
    assert STRATEGIES[name](material).text == model.text
    assert model.trees == trees.count(model.text) > 0
    assert "[num_threads: 0]" in model.text
    narrow = Gate(max_trees=40, max_megabytes=0.1)
    small = STRATEGIES[name](replace(material, gate=narrow))
    assert small.trees <= 40
    assert len(small.text.encode()) <= 100_000


@pytest.mark.parametrize(("span", "more"), [(1, 3), (4, 12), (9, 20)])
def test_several_intervals_refit_the_leaves_as_often(
    material: Material, span: int, more: int
) -> None:
    model = STRATEGIES["refit_boost"](replace(material, span=span))
    assert model.trees == parameters.COMPACT_ROUNDS + more
    assert model.params["refit_decay_rate"] == pytest.approx(0.95**span)


def test_a_blend_is_half_a_new_model_and_half_of_the_parents_first_trees(
    material: Material,
) -> None:
    rows, size = material.new.features, parameters.COMPACT_ROUNDS
    parent = STRATEGIES["refit_boost"](material).text
    for _ in range(2):
        model = STRATEGIES["blend"](replace(material, parent=parent))
        assert model.trees == parameters.BLENDED_TREES == 2 * size
        new = trees.leading(model.text, size)
        mean = (
            boosting.scores(new, rows, 2)
            + boosting.scores(trees.leading(parent, size), rows, 2) / 2
        )
        assert boosting.scores(model.text, rows, 2) == pytest.approx(mean, abs=1e-12)
        assert model.params["blend_new_weight"] == model.params["blend_parent_weight"] == 0.5
        assert model.params["blend_parent_trees"] == size
        parent = model.text
    alone = STRATEGIES["compact"](_learning(material, seed=model.params["seed"])).text
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
        STRATEGIES["refit_boost"](replace(material, parent=None))


def test_the_best_of_several_is_chosen_on_groups_that_none_of_them_learned(
    material: Material,
) -> None:
    name, notes = preselection.best(("refit_boost", "adapt"), material)
    held = preselection.holdout(material.learning, material.new.ids)
    kept, learned = material.new.of(held), replace(material, new=material.new.of(~held))
    values = {
        each: drift.ndcg(
            kept, boosting.scores(STRATEGIES[each](learned).text, kept.features, 2)
        ).mean()
        for each in ("refit_boost", "adapt")
    }
    assert name == max(values, key=values.__getitem__)
    assert f"on {kept.groups} held-out new groups" in notes[0]
    assert all(f"{each} {value:.4f}" in notes[0] for each, value in values.items())
    assert preselection.best(("adapt",), material) == ("adapt", ())


def test_a_monotone_feature_only_raises_the_score(material: Material) -> None:
    bound = _learning(material, monotone={"own_share": 1})
    parent = STRATEGIES["first"](bound).text
    model = STRATEGIES["replay_boost"](replace(bound, parent=parent))
    rows = material.new.features
    place = rows.column_names.index("own_share")
    last = None
    for share in (0.0, 0.1, 0.2, 0.4, 0.8):
        column = np.full(rows.num_rows, share, np.float32)
        scores = boosting.scores(model.text, rows.set_column(place, "own_share", [column]), 2)
        assert last is None or (scores >= last - 1e-12).all()
        last = scores


def test_a_first_model_has_more_trees_the_more_rows_it_learns() -> None:
    rounds = [parameters.first_rounds(rows) for rows in (0, 1_000_000, 2_400_000, 50_000_000)]
    assert rounds == [100, 100, 200, 300]
