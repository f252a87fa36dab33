"""Trees trained on this machine, in this process: binned once, continued, refitted."""

from __future__ import annotations

import ctypes
from typing import Any

from pipelines.shared.models import booster
from pipelines.train.models import boosting
from pipelines.train.trainers.job import Job, Progress, silent


def train(job: Job, progress: Progress = silent) -> str:
    """Train a job; in the model text the parent's trees come first."""
    if job.parent is not None and job.decay is not None:
        model = _refitted(job, job.parent, job.decay)
        _add_trees(model, job.rounds, progress)
        return boosting.text(model)
    examples, params, known = job.examples, job.params, None
    if job.parent is not None:
        known = boosting.scores(job.parent, examples.features, params["num_threads"])
    model = booster.lightgbm().Booster(params, boosting.dataset(examples, params, known))
    _add_trees(model, job.rounds, progress)
    if job.parent is not None:
        boosting.prepend(model, job.parent)
    return boosting.text(model)


def _refitted(job: Job, parent: str, decay: float) -> Any:
    """A booster of the parent with its leaf values refitted, ready for further trees.

    New leaf = decay * old + (1 - decay) * fitted, tree after tree. LightGBM's own `refit` discards
    its bins and scores, and continuing from the result would compute both again; here the
    trees follow on the same ones. The result is the same, except for which features a tree draws.
    """
    examples, params, leaves = job.examples, job.params, job.leaves
    if leaves is None:
        leaves = boosting.leaves(parent, examples.features, params["num_threads"])
    data = boosting.dataset(examples, params)
    model = booster.lightgbm().Booster({**params, "refit_decay_rate": decay}, data)
    boosting.prepend(model, parent)
    from lightgbm.basic import _LIB, _safe_call

    _safe_call(
        _LIB.LGBM_BoosterRefit(
            model._handle,
            leaves.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            ctypes.c_int32(leaves.shape[0]),
            ctypes.c_int32(leaves.shape[1]),
        )
    )
    # A refit leaves room for the leaves of the last tree alone; a changed number makes room again.
    model.reset_parameter({"num_leaves": int(params["num_leaves"]) + 1})
    model.reset_parameter({"num_leaves": int(params["num_leaves"])})
    return model


def _add_trees(model: Any, rounds: int, progress: Progress) -> None:
    for done in range(rounds):
        model.update()
        progress(done + 1, rounds)
