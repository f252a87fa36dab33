"""What an evaluation hands on: the verdict, and the figures that the status table shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.evaluate.bootstrap import Gain
from pipelines.evaluate.compare import BASELINE, CHAMPION, Contest, Figures, Result
from pipelines.evaluate.gate import Trial, Verdict, best_of


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
            "verdict": {**self.verdict.as_dict(), "version": self.version},
            "evaluation": dict(self.figures),
        }


def figures(
    contest: Contest | None,
    result: Result | None,
    versions: Mapping[str, int],
    champion: int | None,
    trained_groups: int,
    overtaken_by: str | None,
) -> dict[str, Any]:
    """The figures that the status table and the pages show.

    Args:
        contest: None where it could not be set up.
        result: None where the contest was not held.
        versions: strategy → registered version.
        champion: the version compared with.
        trained_groups: groups that the challengers learned from.
        overtaken_by: a later interval that was decided before this one.

    Returns:
        `champion`, `baseline`, `challengers`, `gain`, `memory_gain`, `groups`,
        `candidate_recall`, `means` and, if so, `overtaken_by`. What is not known is None.
    """
    means: Figures = result.figures if result else {}
    best = best_of(result.trials) if result else None
    counts = {holdout.split: holdout.groups for holdout in contest.holdouts} if contest else {}
    found = {
        "champion": {"version": champion, "ndcg_at_10": _forward(means, CHAMPION)}
        if champion is not None
        else None,
        "baseline": {"ndcg_at_10": _forward(means, BASELINE)},
        "challengers": [
            {
                "version": versions.get(each.name),
                "strategy": each.name,
                "parent": champion,
                "trees": each.trees,
                "ndcg_at_10": _forward(means, each.name),
            }
            for each in (contest.challengers if contest else ())
        ],
        "gain": _gain(best, "forward"),
        "memory_gain": _gain(best, "memory"),
        "groups": {
            "trained": trained_groups,
            "forward_holdout": counts.get("forward", 0),
            "memory_holdout": counts.get("memory", 0),
        },
        "candidate_recall": _recall(contest),
        "means": {
            name: {
                split: {metric: known(value) for metric, value in values.items()}
                for split, values in splits.items()
            }
            for name, splits in means.items()
        },
    }
    return found | ({"overtaken_by": overtaken_by} if overtaken_by else {})


def flat(result: Result | None, contest: Contest | None, best: Trial | None) -> dict[str, float]:
    """The figures as MLflow's metrics of an interval's run: flat and finite.

    Named `<metric>/<model>`: MLflow shows what stands before the slash as a section of charts.
    """
    found: dict[str, float] = {}
    for name, splits in (result.figures if result else {}).items():
        for split, values in splits.items():
            prefix = "" if split == "forward" else "memory_"
            found |= {f"{prefix}{metric}/{name}": value for metric, value in values.items()}
    for holdout in contest.holdouts if contest else ():
        found[f"{holdout.split}_groups"] = float(holdout.groups)
        if holdout.split == "forward":
            found["candidate_recall"] = holdout.candidate_recall
    if best is not None:
        found["ndcg_at_10/challenger"] = best.forward.ndcg_at_10
        found |= _edges("gain", best.forward.gain) | _edges("memory_gain", best.memory.gain)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def of_challenger(result: Result, trial: Trial) -> dict[str, float]:
    """The same for a challenger's own run."""
    found: dict[str, float] = {"trees": float(trial.trees), "megabytes": trial.megabytes}
    for split, values in result.figures.get(trial.strategy, {}).items():
        prefix = "" if split == "forward" else "memory_"
        found |= {f"{prefix}{metric}": value for metric, value in values.items()}
    found |= _edges("gain", trial.forward.gain) | _edges("memory_gain", trial.memory.gain)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def known(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def _edges(name: str, gain: Gain) -> dict[str, float]:
    return {f"{name}_mean": gain.mean, f"{name}_low": gain.low, f"{name}_high": gain.high}


def _gain(best: Trial | None, split: str) -> dict[str, float | None] | None:
    if best is None:
        return None
    gain = (best.forward if split == "forward" else best.memory).gain
    if not math.isfinite(gain.mean):
        return None
    return {"mean": known(gain.mean), "low": known(gain.low), "high": known(gain.high)}


def _forward(means: Figures, name: str) -> float | None:
    value = means.get(name, {}).get("forward", {}).get("ndcg_at_10")
    return None if value is None else known(value)


def _recall(contest: Contest | None) -> float | None:
    for holdout in contest.holdouts if contest else ():
        if holdout.split == "forward":
            return known(holdout.candidate_recall)
    return None
