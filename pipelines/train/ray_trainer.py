"""Trees grown on Ray's workers, each with its own share of the groups.

LightGBM's data-parallel learner: every worker makes histograms of its rows, and the sums decide
the splits (Meng et al., "A communication-efficient parallel algorithm for decision tree", 2016).
A group is never split: which worker has it follows from a hash of its id.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.shared import booster, hashing
from pipelines.shared.errors import SettingsError
from pipelines.train import boosting
from pipelines.train.boosting import Say
from pipelines.train.examples import Examples

_MODEL: Final = "model.txt"


@dataclass(frozen=True)
class OnRay:
    """Ray Train's LightGBM trainer; joins the cluster that RAY_ADDRESS names, or starts one.

    Moving leaves stays on this machine: it is one pass over the new groups, without a search.
    """

    workers: int
    folder: str | None = None
    """A folder that every worker reaches, for the shares; default: a temporary one of this
    machine, enough where all workers run on it."""

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
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            _write(Path(folder), shares(examples, self.workers), parent, params["num_threads"])
            grown = _train(Path(folder), self.workers, categorical, params, rounds)
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
    ) -> str:
        """See `Trainer.refit`."""
        moved = boosting.refit(parent, examples, categorical, params, decay, 0)
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


def _write(folder: Path, parts: list[Examples], parent: str | None, threads: int) -> None:
    for number, part in enumerate(parts):
        known = np.zeros(part.rows)
        if parent is not None:
            known = boosting.scores(parent, part.features, threads)
        rows = part.features
        for name, values in (("label", part.labels), ("weight", part.weights), ("known", known)):
            rows = rows.append_column(f"__{name}", pa.array(values))
        pq.write_table(rows, folder / f"{number}.parquet")
        np.save(folder / f"{number}.npy", part.sizes)


def _train(
    folder: Path, workers: int, categorical: tuple[str, ...], params: dict[str, Any], rounds: int
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
        "folder": str(folder),
        "categorical": list(categorical),
        "params": params,
        "rounds": rounds,
    }
    trainer = LightGBMTrainer(
        _work,
        train_loop_config=told,
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(storage_path=str(folder / "ray"), name="train"),
    )
    trainer.fit()
    return (folder / _MODEL).read_text(encoding="utf-8")


def _work(told: dict[str, Any]) -> None:
    """One worker: its share of the groups, the same trees as all others."""
    import ray.train
    from ray.train.lightgbm import get_network_params

    lgb = booster.lightgbm()
    rank = ray.train.get_context().get_world_rank()
    folder = Path(told["folder"])
    rows = pq.read_table(folder / f"{rank}.parquet")
    known, weight = (rows[f"__{name}"].to_numpy() for name in ("known", "weight"))
    params = told["params"] | {"tree_learner": "data", "pre_partition": True}
    # Not binned before the workers know each other: they agree on the bins.
    data = lgb.Dataset(
        rows.drop_columns(["__label", "__weight", "__known"]).combine_chunks(),
        rows["__label"].to_numpy(),
        group=np.load(folder / f"{rank}.npy"),
        weight=weight if (weight != 1).any() else None,
        init_score=known if known.any() else None,
        categorical_feature=told["categorical"],
        params=params,
    )
    model = lgb.train(params | get_network_params(), data, told["rounds"])
    if rank == 0:
        (folder / _MODEL).write_text(boosting.text(model), encoding="utf-8")
