"""Trees trained on Ray's workers, each with its own share of the groups.

LightGBM's data-parallel learner: every worker makes histograms of its rows, and the sums decide
the splits (Meng et al., "A communication-efficient parallel algorithm for decision tree", 2016).
A group is never split: which worker has it follows from a hash of its id.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.shared import hashing
from pipelines.shared.errors import SettingsError
from pipelines.shared.models import booster
from pipelines.train.data.examples import Examples
from pipelines.train.models import boosting
from pipelines.train.models.boosting import Scores
from pipelines.train.trainers import local
from pipelines.train.trainers.job import Job, Progress, silent


def train(job: Job, workers: int, progress: Progress = silent) -> str:
    """Train a job with Ray Train's LightGBM trainer; the text depends on the number of workers too.

    Joins the cluster that RAY_ADDRESS names, or starts one. The shares travel through Ray's object
    store, so that the workers' machines need no folder in common, only this project and its
    packages. A refit stays on this machine: it is one pass over the new groups, without a search.

    Raises:
        SettingsError: Ray is not installed.
        ValueError: a worker would have no group.
    """
    if job.parent is not None and job.decay is not None:
        refitted = local.train(replace(job, rounds=0))
        job = replace(job, parent=refitted, decay=None, leaves=None)
    if job.rounds == 0 and job.parent is not None:
        return job.parent
    parts = shares(job.examples, workers)
    model = boosting.opened(_fitted([_share(part, job) for part in parts], job))
    if job.parent is not None:
        boosting.prepend(model, job.parent)
    progress(job.rounds, job.rounds)
    return boosting.text(model)


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
    known: Scores | None
    """n scores of the parent."""


def _share(part: Examples, job: Job) -> Share:
    if job.parent is None:
        return Share(part, None)
    return Share(part, boosting.scores(job.parent, part.features, job.params["num_threads"]))


def _fitted(parts: list[Share], job: Job) -> str:
    """The text of the new trees alone, which all workers agree on."""
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
    config = {
        "shares": [ray.put(part) for part in parts],
        "params": job.params,
        "rounds": job.rounds,
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = LightGBMTrainer(
            _worker,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=len(parts)),
            run_config=RunConfig(storage_path=folder, name="train"),
        )
        return str(trainer.fit().return_value)


def _worker(config: dict[str, Any]) -> str:
    """One worker: its share of the groups, the same trees as all others, without the parent's."""
    import ray
    import ray.train
    from ray.train.lightgbm import get_network_params

    share: Share = ray.get(config["shares"][ray.train.get_context().get_world_rank()])
    params = config["params"] | {"tree_learner": "data", "pre_partition": True}
    # Not binned before the workers know each other: they agree on the bins.
    data = boosting.dataset(share.examples, params, share.known)
    model = booster.lightgbm().train(params | get_network_params(), data, config["rounds"])
    return boosting.text(model)
