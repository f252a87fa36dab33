"""An occasional search for better settings of learning, on intervals that are past already.

Each trial is prequential: a model learns the interval before, scores what came new in the next,
then learns that by `refit_boost` under the trial's settings, and so on. Groups of the memory
holdout, and those from the run's cut on, are never touched, so they are new to the gate when it
meets what a proposal trains. Search: the tree-structured Parzen estimator of Bergstra et al.,
"Algorithms for hyper-parameter optimization" (2011), as Optuna has it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from pipelines.shared.errors import PermanentError
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run
from pipelines.train import drift, plan, strategies
from pipelines.train.data import groups
from pipelines.train.data.examples import Examples
from pipelines.train.data.groups import Catalogue
from pipelines.train.material import Material
from pipelines.train.models import boosting
from pipelines.train.models.parameters import MIN_GROUPS
from pipelines.train.trainers.job import Progress

TUNED: Final = ("refit_decay", "refit_rounds", "learning_rate")


class TooLittleHistory(PermanentError):
    """There are too few intervals with groups to tune on."""


@dataclass(frozen=True)
class Trial:
    """One set of settings and what it reached."""

    number: int
    settings: dict[str, Any]
    ndcg_at_10: float
    """Mean over the intervals' groups, negatives thinned."""


@dataclass(frozen=True)
class Study:
    """The trials of a search, and what it proposes."""

    name: str
    intervals: tuple[str, ...]
    trials: tuple[Trial, ...]
    """By number; the first has the shop's own settings."""
    proposal: Path | None
    """A YAML file with a `learning:` section; None where the shop's own settings are best."""

    @property
    def best(self) -> Trial:
        """The trial with the highest NDCG@10; the earliest of equals."""
        return max(self.trials, key=lambda trial: (trial.ndcg_at_10, -trial.number))


def tune(run: Run, trials: int, intervals: int, folder: Path, progress: Progress) -> Study:
    """Search for settings on the last intervals with groups up to a run's.

    Trials that an earlier, killed call finished are not done again. The first model learns the
    window before the intervals. The folder keeps the search's database and the proposal.

    Raises:
        TooLittleHistory: there are fewer than `intervals` + 2 with groups.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = plan.window(run, plan.steps(run))
    if len(known) < intervals + 2:
        raise TooLittleHistory(
            f"{run.shop.shop}: {len(known)} intervals with groups up to {run.interval}, tuning on "
            f"{intervals} wants {intervals + 2}; tune on fewer, or later"
        )
    folder.mkdir(parents=True, exist_ok=True)
    course = _Course.of(run, known, intervals)
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/tuning.db",
        study_name=course.name,
        direction="maximize",
        load_if_exists=True,
    )
    declared = {name: getattr(run.shop.learning, name) for name in TUNED}
    if not study.trials:
        study.enqueue_trial(declared)
    while (done := len(_finished(study))) < trials:
        progress(done, trials)
        # A new sampler for each trial: its draws do not depend on where the search was resumed.
        study.sampler = optuna.samplers.TPESampler(seed=run.shop.learning.seed + done)
        study.optimize(lambda trial: course.value(_suggested(trial)), n_trials=1)
    progress(trials, trials)
    finished = tuple(
        Trial(number, each.params, float(each.value))
        for number, each in enumerate(_finished(study))
    )
    result = Study(course.name, course.intervals, finished, None)
    if result.best.number == 0:
        return result
    path = folder / f"{course.name}.yaml"
    path.write_text(yaml.safe_dump({"learning": result.best.settings}), encoding="utf-8")
    return replace(result, proposal=path)


def _finished(study: Any) -> list[Any]:
    return [each for each in study.trials if each.state.name == "COMPLETE"]


def _suggested(trial: Any) -> dict[str, Any]:
    return {
        "refit_decay": trial.suggest_float("refit_decay", 0.8, 0.99),
        "refit_rounds": trial.suggest_int("refit_rounds", 0, 8),
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.15, log=True),
    }


@dataclass(frozen=True)
class _Course:
    """The first model and the intervals that every trial goes through."""

    name: str
    run: Run
    intervals: tuple[str, ...]
    first: str
    parts: tuple[Examples, ...]

    @classmethod
    def of(cls, run: Run, known: list[Manifest], intervals: int) -> _Course:
        before, steps = known[:-intervals], known[-intervals:]
        catalogue = Catalogue.of(known[-1])
        start = steps[0].interval.start

        def read(chosen: list[Manifest], since: Any, until: Any) -> Examples:
            return groups.load(run, groups.select(run, chosen, since, until), catalogue)

        edges = [start, *(step.interval.end for step in steps[:-1]), plan.cut(run)]
        parts = tuple(
            part
            for since, until in pairwise(edges)
            if (part := read(known, since, until)).groups >= MIN_GROUPS
        )
        first = strategies.compact(Material.of(run, read(before, None, start))).text
        inputs = "".join(step.content_hash for step in known) + repr(run.shop.learning)
        name = f"{run.interval.start:%Y-%m-%d}-{hashlib.sha256(inputs.encode()).hexdigest()[:12]}"
        return cls(name, run, tuple(step.interval.key for step in steps), first, parts)

    def value(self, settings: dict[str, Any]) -> float:
        """Mean NDCG@10 of the intervals' groups, each scored before it is learned."""
        learning = self.run.shop.learning.model_copy(update=settings)
        model, values = self.first, []
        for number, part in enumerate(self.parts):
            scores = boosting.scores(model, part.features, self.run.settings.threads)
            values.append(drift.ndcg(part, scores))
            if number + 1 < len(self.parts):
                material = replace(Material.of(self.run, part, model), learning=learning)
                model = strategies.refit_boost(material).text
        return float(np.concatenate(values).mean())
