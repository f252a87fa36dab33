"""The evaluation as the ledger keeps it, and as the tracker shows it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipelines.evaluate import holdouts
from pipelines.evaluate.compare import BASELINE, CHAMPION, Comparison, Contender, PairedGain
from pipelines.evaluate.gate import Verdict
from pipelines.evaluate.tracking import examples
from pipelines.evaluate.tracking.tracker import DataVersion, ModelReport, Report
from pipelines.shared.intervals import Interval
from pipelines.shared.models import booster
from pipelines.shared.models.challengers import Trained
from pipelines.shared.run import Run


@dataclass(frozen=True)
class Evaluation:
    """One interval's evaluation, as the manifest of stage `evaluate` keeps it in its details."""

    compared_with: int | None
    """The champion's version; None where the baseline took its place."""
    verdict: Verdict
    version: int | None
    """Registered version of the challenger that the verdict is about."""
    figures: Mapping[str, Any]
    """See `figures`; JSON, without NaN."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON: `compared_with`, `verdict{outcome, challenger, reasons, version}`,
        `evaluation`."""
        return {
            "compared_with": self.compared_with,
            "verdict": asdict(self.verdict)
            | {"reasons": list(self.verdict.reasons), "version": self.version},
            "evaluation": dict(self.figures),
        }


def evaluation(
    trained: Trained,
    comparison: Comparison,
    verdict: Verdict,
    versions: Mapping[str, int],
    overtaken_by: str | None,
) -> Evaluation:
    """The evaluation for the ledger, given the registered version of each strategy."""
    groups = max((each.groups for each in trained.challengers), default=0)
    numbers = figures(comparison, versions, groups)
    if overtaken_by:
        numbers["overtaken_by"] = overtaken_by
    version = versions.get(verdict.challenger) if verdict.challenger else None
    return Evaluation(trained.parent, verdict, version, numbers)


def figures(
    comparison: Comparison, versions: Mapping[str, int], trained_groups: int
) -> dict[str, Any]:
    """The figures that the status table and the pages show.

    `champion`, `baseline`, `challengers`, `gain`, `memory_gain`, `groups`, `candidate_recall` and
    `means`. What is not known is None.
    """
    parent, best, means = comparison.parent, comparison.best, comparison.figures
    holdouts = {holdout.split: holdout for holdout in comparison.holdouts}
    groups = {split: holdout.groups for split, holdout in holdouts.items()}

    def level(name: str) -> float | None:
        return _known(means.get(name, {}).get("forward", {}).get("ndcg_at_10", math.nan))

    return {
        "champion": None if parent is None else {"version": parent, "ndcg_at_10": level(CHAMPION)},
        "baseline": {"ndcg_at_10": level(BASELINE)},
        "challengers": [
            {
                "version": versions.get(each.name),
                "strategy": each.name,
                "parent": parent,
                "trees": each.trees,
                "ndcg_at_10": level(each.name),
            }
            for each in comparison.challengers
        ],
        "gain": _gain(best.forward) if best else None,
        "memory_gain": _gain(best.memory) if best else None,
        "groups": {
            "trained": trained_groups,
            "forward_holdout": groups.get("forward", 0),
            "memory_holdout": groups.get("memory", 0),
        },
        "candidate_recall": _known(holdouts["forward"].candidate_recall) if holdouts else None,
        "means": {
            name: {
                split: {metric: _known(value) for metric, value in values.items()}
                for split, values in splits.items()
            }
            for name, splits in means.items()
        },
    }


def report(run: Run, trained: Trained, comparison: Comparison, verdict: Verdict) -> Report:
    """The evaluation for the tracker."""
    metrics = _metrics(comparison)
    models = _models(run, trained, comparison)
    data = _data(run)
    params = {
        "interval_start": run.interval.key,
        "interval_end": f"{run.interval.end:%Y-%m-%dT%H:%M:%SZ}",
        "cut": f"{trained.cut:%Y-%m-%dT%H:%M:%SZ}",
        "compared_with": "baseline"
        if trained.parent is None or comparison.unscorable
        else str(trained.parent),
        **{f"gate.{name}": str(value) for name, value in run.shop.gate.model_dump().items()},
    }
    tags = {
        "freshrank.verdict": verdict.outcome,
        "freshrank.challenger": verdict.challenger or "none",
        "freshrank.reasons": "\n".join(verdict.reasons),
        "mlflow.note.content": "\n".join(f"- {reason}" for reason in verdict.reasons),
    }
    # Decides whether a rerun reports the same: its parts and their order stay as they are.
    content = [metrics, params, tags, [(each.strategy, each.content_hash) for each in models]]
    content.append([(each.name, each.digest) for each in data])
    candidates = comparison.holdouts[0].rows if comparison.holdouts else pa.table({})
    return Report(
        shop=run.shop.shop,
        surface=run.shop.surface.name,
        interval=run.interval,
        ordinal=(run.interval.start - run.shop.grid.anchor) // run.shop.grid.step,
        content_hash=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        metrics=metrics,
        params=params,
        tags=tags,
        data=data,
        models=models,
        sample=examples.typical(candidates),
        artifacts=run.lake.local_root / "mlflow",
    )


def _metrics(comparison: Comparison) -> dict[str, float]:
    """The figures as MLflow's metrics of an interval's run: flat and finite.

    Named `<metric>/<model>`: MLflow shows what stands before the slash as a section of charts.
    """
    metrics = {
        f"{'' if split == 'forward' else 'memory_'}{metric}/{name}": value
        for name, splits in comparison.figures.items()
        for split, values in splits.items()
        for metric, value in values.items()
    }
    for holdout in comparison.holdouts:
        metrics[f"{holdout.split}_groups"] = float(holdout.groups)
        if holdout.split == "forward":
            metrics["candidate_recall"] = holdout.candidate_recall
    if (best := comparison.best) is not None:
        metrics["ndcg_at_10/challenger"] = best.forward.ndcg_at_10
        metrics |= _gains(best)
    return _finite(metrics)


def _models(run: Run, trained: Trained, comparison: Comparison) -> tuple[ModelReport, ...]:
    """The challengers to register; none where the comparison failed."""
    if comparison.failure is not None:
        return ()
    measured = {each.name: each for each in comparison.challengers}
    reports = []
    known = {
        (version.strategy, version.content_hash): version.version
        for version in run.ledger.versions()
        if version.interval == run.interval
    }
    for each in trained.challengers:
        path = run.lake.local_root / each.artifact
        reports.append(
            ModelReport(
                strategy=each.strategy,
                model=path,
                card=booster.card(path),
                content_hash=each.content_hash,
                parent=each.parent,
                trained_through=f"{each.trained_through:%Y-%m-%dT%H:%M:%SZ}",
                metrics=_model_metrics(comparison, measured[each.strategy]),
                importance=booster.importance(path),
                version=known.get((each.strategy, each.content_hash)),
            )
        )
    return tuple(reports)


def _model_metrics(comparison: Comparison, each: Contender) -> dict[str, float]:
    """The metrics of a challenger's own run."""
    metrics = {"trees": float(each.trees), "megabytes": each.megabytes} | {
        f"{'' if split == 'forward' else 'memory_'}{metric}": value
        for split, values in comparison.figures.get(each.name, {}).items()
        for metric, value in values.items()
    }
    return _finite(metrics | _gains(each))


def _data(run: Run) -> tuple[DataVersion, ...]:
    """The interval's own groups, and those over which the memory holdout reaches."""
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


def _gains(each: Contender) -> dict[str, float]:
    return {
        f"{name}_{edge}": value
        for name, gain in (("gain", each.forward.gain), ("memory_gain", each.memory.gain))
        for edge, value in (("mean", gain.mean), ("low", gain.low), ("high", gain.high))
    }


def _gain(paired: PairedGain) -> dict[str, float | None] | None:
    gain = paired.gain
    if not math.isfinite(gain.mean):
        return None
    return {"mean": _known(gain.mean), "low": _known(gain.low), "high": _known(gain.high)}


def _known(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
