"""Continuing a model on bins made once is what LightGBM's own, slower ways give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.shared.models import booster
from pipelines.train import plan
from pipelines.train.data import groups
from pipelines.train.data.examples import Examples
from pipelines.train.data.groups import Catalogue
from pipelines.train.material import Material
from pipelines.train.models import boosting
from pipelines.train.trainers import local
from pipelines.train.trainers.job import Job
from tests.train.baskets import CATEGORICAL, FEATURES, Installation, interval

Params = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, real_baskets: Any) -> Installation:
    return Installation.at(tmp_path_factory.mktemp("boosting"), real_baskets)


@pytest.fixture(scope="module")
def weeks(shop: Installation) -> Callable[[int, int], Examples]:
    run = shop.run(0, 8)
    catalogue = Catalogue(FEATURES, CATEGORICAL)

    def read(first: int, last: int) -> Examples:
        edges = interval(first).start, interval(last).end
        return groups.load(run, groups.select(run, plan.steps(run), *edges), catalogue)

    return read


@pytest.fixture(scope="module")
def chosen(shop: Installation) -> Params:
    run = shop.any
    return lambda examples, **changed: Material.of(run, examples).params(examples, **changed)


def _slow(parent: str, new: Examples, params: dict[str, Any], decay: float, rounds: int) -> Any:
    """Refit by LightGBM's own method, then continue by its `init_model`."""
    lgb = booster.lightgbm()
    refitted = lgb.Booster(model_str=parent).refit(
        new.features, new.labels, group=new.sizes, decay_rate=decay, dataset_params=params,
        num_threads=2,
    )  # fmt: skip
    if not rounds:
        return refitted
    data = lgb.Dataset(
        new.features, new.labels, group=new.sizes, categorical_feature=list(CATEGORICAL),
        params=params, free_raw_data=False,
    )  # fmt: skip
    return lgb.train(params, data, rounds, init_model=refitted)


@pytest.mark.parametrize("leaves", [31, 2])
@pytest.mark.parametrize("rounds", [0, 4])
def test_refitting_and_growing_on_the_same_bins_is_exact(
    weeks: Callable[[int, int], Examples], chosen: Params, leaves: int, rounds: int
) -> None:
    old, new = weeks(0, 3), weeks(4, 4)
    first = local.train(Job(old, chosen(old, num_leaves=leaves), 8))
    # Every tree sees every feature: which ones are drawn differs between the two ways.
    params = chosen(new, learning_rate=0.05, feature_fraction=1.0)
    quick = local.train(Job(new, params, rounds, first, 0.9))
    slow = _slow(first, new, params, 0.9, rounds)
    assert quick.count("\nTree=") == 8 + rounds
    expected = slow.predict(new.features, num_threads=2)
    assert np.array_equal(boosting.scores(quick, new.features, 2), expected)
    assert not np.array_equal(expected, boosting.scores(first, new.features, 2))


def test_continuing_is_exact_and_keeps_the_parents_trees(
    weeks: Callable[[int, int], Examples], chosen: Params
) -> None:
    lgb = booster.lightgbm()
    old, new = weeks(0, 3), weeks(4, 4)
    first = local.train(Job(old, chosen(old), 6))
    params = chosen(new)
    quick = local.train(Job(new, params, 5, first))
    data = lgb.Dataset(
        new.features, new.labels, group=new.sizes, categorical_feature=list(CATEGORICAL),
        params=params, free_raw_data=False,
    )  # fmt: skip
    slow = lgb.train(params, data, 5, init_model=lgb.Booster(model_str=first))
    expected = slow.predict(new.features, num_threads=2)
    assert np.allclose(boosting.scores(quick, new.features, 2), expected, rtol=0, atol=1e-12)
    trees = [each.split("\nTree=")[1:7] for each in (first, quick)]
    assert trees[0][:5] == trees[1][:5]


def test_weights_change_what_is_learned(
    weeks: Callable[[int, int], Examples], chosen: Params
) -> None:
    new = weeks(0, 3)
    params = chosen(new)
    plain = local.train(Job(new, params, 3))
    heavy = np.where(np.arange(new.rows) % 2 == 0, 2.0, 0.5).astype(np.float32)
    assert local.train(Job(replace(new, weights=heavy), params, 3)) != plain
    assert local.train(Job(new, params, 3)) == plain


def test_scores_from_leaves_are_the_scores_and_a_refit_by_them_is_the_same(
    weeks: Callable[[int, int], Examples], chosen: Params
) -> None:
    old, new = weeks(0, 3), weeks(4, 4)
    parent = local.train(Job(old, chosen(old), 20))
    leaves = boosting.leaves(parent, new.features, 2)
    assert leaves.shape == (new.rows, 20)
    scores = boosting.scores(parent, new.features, 2)
    assert boosting.scores_from_leaves(parent, leaves) == pytest.approx(scores, abs=1e-12)
    params = chosen(new)
    known = local.train(Job(new, params, 2, parent, 0.9, leaves))
    assert known == local.train(Job(new, params, 2, parent, 0.9))
