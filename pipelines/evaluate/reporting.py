"""An evaluation as the tracker is told of it."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa

from pipelines.evaluate import evaluation as evaluations
from pipelines.evaluate import gate, holdouts
from pipelines.evaluate.judgement import Judged
from pipelines.evaluate.report import DataVersion, ModelReport, Report
from pipelines.shared.intervals import Interval
from pipelines.shared.models import booster
from pipelines.shared.run import Run


def report(run: Run, judged: Judged) -> Report:
    """All that the tracker is told of an interval."""
    trained, result, contest = judged.trained, judged.result, judged.contest
    best = gate.best_of(result.trials) if result else None
    metrics = evaluations.flat(result, contest, best)
    models = _models(run, judged)
    data = _data(run)
    params = {
        "interval_start": f"{run.interval.start:%Y-%m-%dT%H:%M:%SZ}",
        "interval_end": f"{run.interval.end:%Y-%m-%dT%H:%M:%SZ}",
        "cut": f"{trained.cut:%Y-%m-%dT%H:%M:%SZ}",
        "compared_with": str(trained.parent) if trained.parent is not None else "baseline",
        **{f"gate.{name}": str(value) for name, value in run.shop.gate.model_dump().items()},
    }
    tags = {
        "freshrank.verdict": judged.verdict.outcome,
        "freshrank.challenger": judged.verdict.challenger or "none",
        "freshrank.reasons": "\n".join(judged.verdict.reasons),
        "mlflow.note.content": "\n".join(f"- {reason}" for reason in judged.verdict.reasons),
    }
    said = [metrics, params, tags, [(each.strategy, each.content_hash) for each in models]]
    said.append([(each.name, each.digest) for each in data])
    forward = contest.holdouts[0].rows if contest else pa.table({})
    return Report(
        shop=run.shop.shop,
        surface=run.shop.surface.name,
        interval=run.interval,
        ordinal=(run.interval.start - run.shop.grid.anchor) // run.shop.grid.step,
        content_hash=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        metrics=metrics,
        params=params,
        tags=tags,
        data=data,
        models=models,
        sample=forward.slice(0, 5),
        artifacts=run.lake.local_root / "mlflow",
    )


def _models(run: Run, judged: Judged) -> tuple[ModelReport, ...]:
    """What to register; nothing where the contest was not held."""
    if judged.result is None:
        return ()
    trials = {trial.strategy: trial for trial in judged.result.trials}
    reports = []
    for each in judged.trained.challengers:
        path = run.lake.local_root / each.artifact
        reports.append(
            ModelReport(
                strategy=each.strategy,
                model=path,
                card=booster.card(path),
                content_hash=each.content_hash,
                parent=each.parent,
                trained_through=f"{each.trained_through:%Y-%m-%dT%H:%M:%SZ}",
                metrics=evaluations.of_challenger(judged.result, trials[each.strategy]),
                importance=booster.importance(path),
            )
        )
    return tuple(reports)


def _data(run: Run) -> tuple[DataVersion, ...]:
    """The interval's own groups, and those of the memory holdout's reach."""
    surface = run.shop.surface.name
    table = f"groups/{surface}"
    version = run.lake.version(table)
    memory = holdouts.memory_steps(run)
    built = {
        manifest.interval: manifest.content_hash
        for manifest in run.ledger.manifests("features", surface, memory[0].start)
    }
    parts: tuple[tuple[str, tuple[Interval, ...]], ...] = (
        ("groups", run.steps),
        ("memory", memory),
    )
    return tuple(
        DataVersion(
            name,
            hashlib.sha256("".join(built.get(step, "-") for step in steps).encode()).hexdigest(),
            run.lake.uri(table),
            version,
            steps[0],
            steps[-1],
        )
        for name, steps in parts
    )
