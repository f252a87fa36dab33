"""Two of Ray's workers, whole groups each, and the same model text on a rerun.

How much these models lose is measured on more groups than these few hundred (docs/learning.md);
here a wide margin only tells a model from a broken one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from pipelines import train
from pipelines.train import drift, plan
from pipelines.train.data import groups
from pipelines.train.data.examples import Examples
from pipelines.train.data.groups import Catalogue
from pipelines.train.material import Material
from pipelines.train.models import boosting
from pipelines.train.strategies import STRATEGIES
from pipelines.train.trainers import ray as ray_trainer
from tests.train.baskets import CATEGORICAL, FEATURES, Installation, interval

MARGIN = 0.03
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)


def _read(shop: Installation, first: int, last: int) -> Examples:
    run = shop.run(0, 13)
    edges = interval(first).start, interval(last).end
    return groups.load(
        run, groups.select(run, plan.steps(run), *edges), Catalogue(FEATURES, CATEGORICAL)
    )


def test_groups_are_never_split_and_none_is_lost(shop: Installation) -> None:
    examples = _read(shop, 0, 1)
    parts = ray_trainer.shares(examples, 3)
    ids = [set(part.ids.to_pylist()) for part in parts]
    assert sum(map(len, ids)) == examples.groups == len(set().union(*ids))
    assert sum(part.rows for part in parts) == examples.rows
    one = examples.of(np.arange(examples.groups) == 0)
    with pytest.raises(ValueError, match="leave nothing for 1 of 2 workers"):
        ray_trainer.shares(one, 2)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of two nodes with room for one worker each."""
    import ray
    from ray.cluster_utils import Cluster

    # On a busy machine workers start late, and niced ones hardly at all.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
    cluster.shutdown()


@needs_ray
@pytest.mark.services
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_learn_much_the_same_as_one(shop: Installation, two_nodes: None) -> None:
    old, new, later = _read(shop, 0, 5), _read(shop, 6, 7), _read(shop, 8, 12)
    models = []
    for trainer in ("local", "ray"):
        run = Installation(shop.settings, {"trainer": trainer, "workers": 2}).any
        first = STRATEGIES["first"](replace(Material.of(run, old), threads=1))
        material = replace(Material.of(run, new, first.text), threads=1)
        models.append(STRATEGIES["refit_boost"](material))
    trees = 100 + run.shop.learning.refit_rounds
    assert [each.trees for each in models] == [trees, trees]
    one, two = (drift.ndcg(later, boosting.scores(each.text, later.features, 1)) for each in models)
    gain = two - one
    assert gain.mean() - 1.96 * gain.std() / np.sqrt(len(gain)) > -MARGIN


@needs_ray
@pytest.mark.services
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_stage_trains_on_ray_where_the_shop_says_so(
    started: Installation, two_nodes: None
) -> None:
    spread = Installation(started.settings, started.changed | {"trainer": "ray", "workers": 2})
    trained = train.run(spread.run(4))
    assert [each.strategy for each in trained.challengers] == ["refit_boost"]
    assert train.run(spread.run(4)).details() == trained.details()
