"""Trees grown on Ray's workers, each with its own share of the groups.

LightGBM's data-parallel learner: every worker makes histograms of its rows, and the sums decide
the splits (Meng et al., "A communication-efficient parallel algorithm for decision tree", 2016).
A group is never split: which worker has it follows from a hash of its id.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.shared import hashing
from pipelines.shared.errors import SettingsError
from pipelines.shared.models import booster
from pipelines.train.data.examples import Examples
from pipelines.train.models import boosting
from pipelines.train.models.boosting import Leaves, Say


@dataclass(frozen=True)
class OnRay:
    """Ray Train's LightGBM trainer; joins the cluster that RAY_ADDRESS names, or starts one.

    The shares travel through Ray's object store, so that the workers' machines need no folder in
    common, only this project and its packages. Moving leaves stays on this machine: it is one pass
    over the new groups, without a search.
    """

    workers: int

    def grow(
        self,
        examples: Examples,
        categorical: tuple[str, ...],
        params: dict[str, Any],
        parent: str | None,
        rounds: int,
        say: Say,
    ) -> str:
        """See `Trainer.grow`. The text depends on the number of workers too.

        Raises:
            SettingsError: Ray is not installed.
        """
        if rounds == 0 and parent is not None:
            return parent
        parts = shares(examples, self.workers)
        grown = _train(
            [_share(part, parent, params) for part in parts], categorical, params, rounds
        )
        say(rounds, rounds)
        return boosting.text(boosting.appended(parent, grown))

    def refit(
        self,
        examples: Examples,
        categorical: tuple[str, ...],
        params: dict[str, Any],
        parent: str,
        decay: float,
        rounds: int,
        say: Say,
        leaves: Leaves | None,
    ) -> str:
        """See `Trainer.refit`."""
        moved = boosting.refit(
            parent, examples, categorical, params, decay, 0, boosting.silent, leaves
        )
        return self.grow(examples, categorical, params, moved, rounds, say)


def shares(examples: Examples, workers: int) -> list[Examples]:
    """Part whole groups among workers by a hash of their ids.

    Raises:
        ValueError: a worker would have no group.
    """
    place = (hashing.draw("worker", examples.ids) * workers).astype(np.int64)
    parts = [examples.of(place == number) for number in range(workers)]
    if empty := [number for number, part in enumerate(parts) if part.groups == 0]:
        raise ValueError(
            f"{examples.groups} groups leave nothing for {len(empty)} of {workers} workers; set "
            "learning.workers lower"
        )
    return parts


@dataclass(frozen=True)
class Share:
    """What one worker learns from."""

    examples: Examples
    known: npt.NDArray[np.float64] | None
    """n scores of the parent."""


def _share(part: Examples, parent: str | None, params: dict[str, Any]) -> Share:
    if parent is None:
        return Share(part, None)
    return Share(part, boosting.scores(parent, part.features, params["num_threads"]))


def _train(
    parts: list[Share], categorical: tuple[str, ...], params: dict[str, Any], rounds: int
) -> str:
    try:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.lightgbm import LightGBMTrainer
    except ImportError as error:
        raise SettingsError(
            "learning.trainer is `ray`, and Ray is not installed: install requirements-scale.txt, "
            "or set it to `local`"
        ) from error
    # Workers are niced by default, and starve beside anything else on their machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    told = {
        "shares": [ray.put(part) for part in parts],
        "categorical": list(categorical),
        "params": params,
        "rounds": rounds,
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = LightGBMTrainer(
            _work,
            train_loop_config=told,
            scaling_config=ScalingConfig(num_workers=len(parts)),
            run_config=RunConfig(storage_path=folder, name="train"),
        )
        return str(trainer.fit().return_value)


def _work(told: dict[str, Any]) -> str:
    """One worker: its share of the groups, the same trees as all others.

    Returns:
        The model text without the parent.
    """
    import ray
    import ray.train
    from ray.train.lightgbm import get_network_params

    lgb = booster.lightgbm()
    share: Share = ray.get(told["shares"][ray.train.get_context().get_world_rank()])
    examples = share.examples
    params = told["params"] | {"tree_learner": "data", "pre_partition": True}
    # Not binned before the workers know each other: they agree on the bins.
    data = lgb.Dataset(
        examples.features,
        examples.labels,
        group=examples.sizes,
        weight=examples.weights if (examples.weights != 1).any() else None,
        init_score=share.known,
        categorical_feature=told["categorical"],
        params=params,
    )
    return boosting.text(lgb.train(params | get_network_params(), data, told["rounds"]))
