"""Which challengers to train in a run: by what is allowed, what is due and what it may cost.

One by default. What forces another model (other features, a passed budget) leaves no choice, and
every few runs a new model is averaged with the champion; an abrupt change puts a rival beside the
usual challenger, and the better of the two on groups that the gate does not use goes to the gate
(`train/stage.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.shared.declaration import Gate, Learning
from pipelines.train.drift import RECOVERY
from pipelines.train.models import parameters

LEAST_BETWEEN: Final = 4
"""Runs from one new model to the next at least."""
REFIT_WORK: Final = 0.75
"""Moving a tree's leaves, as a part of growing it, as measured."""


@dataclass(frozen=True)
class Spent:
    """What a past run cost, in groups times trees, and what a full retrain would have."""

    work: float
    full: float


@dataclass(frozen=True)
class Situation:
    """All that the choice rests on."""

    learning: Learning
    gate: Gate
    mismatch: str | None
    """Why the parent's trees would misread today's groups; None if they do not."""
    trees: int
    """Of the parent."""
    megabytes: float
    score_ms: float
    """99th percentile of the time in which the parent scores 500 candidates."""
    span: int
    """Intervals that the new groups cover."""
    behind: float | None
    """See `drift.behind`."""
    since_alarm: int | None
    """See `drift.since_alarm` and `reach`; the run at hand counts."""
    new_groups: int
    window_groups: int
    """Groups that a compaction would learn from."""
    all_groups: int
    """Groups that a full retrain would learn from."""
    past: Sequence[Spent] = ()
    """Runs since the first model, oldest first."""
    since_compaction: int = 0
    """Runs since a model was last grown anew, taken or not."""


@dataclass(frozen=True)
class Plan:
    """What to train, and what is to be said about it."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    forced: bool = False
    """Nothing could be continued: the challenger need only be no worse (law 9)."""


def choose(at: Situation) -> Plan:
    """The challengers of a run.

    Returns:
        One name where there is no choice, else the usual challenger and its rival.
    """
    if at.mismatch:
        return Plan(("compact",), (f"compact, because {at.mismatch}",), forced=True)
    usual = mainstay(at.learning)
    if why := over_budget(at):
        return Plan(("compact",), (f"compact instead of {usual}, because {why}",), forced=True)
    if at.since_alarm is not None:
        return _after_a_change(at, usual, at.since_alarm)
    if at.since_compaction + 1 >= at.learning.blend_within:
        return Plan(("blend",), (f"blend: no new model for {at.since_compaction} runs",))
    if at.since_compaction + 1 >= LEAST_BETWEEN and credit(at) >= _work("blend", at):
        return Plan(("blend",), ("blend: what it costs has been saved",))
    return Plan((usual,))


def _after_a_change(at: Situation, usual: str, runs: int) -> Plan:
    """At an alarm, and in the runs after it, the new is learned faster.

    A new model would learn a window of before, until half of it is of after. Moving leaves heeds no
    monotone constraint: a shop that declares one gets a new model at once instead.
    """
    if runs == 0:
        fell = f"the champion is {at.behind or 0:.1f} errors behind its past"
        if at.learning.monotone:
            return Plan(("compact",), (f"compact: {fell}",))
        return Plan((usual, "adapt"), (f"adapt beside {usual}: {fell}",))
    past = f"the champion fell far behind {runs} runs ago"
    if runs <= RECOVERY and not at.learning.monotone:
        return Plan(("adapt",), (f"adapt: {past}",))
    if at.since_compaction + 1 >= at.learning.blend_within:
        return Plan((usual,), (f"no new model: {past}",))
    return Plan((usual,))


def reach(learning: Learning) -> int:
    """How many runs back an alarm matters: until half of a window is of after it."""
    return max(RECOVERY, learning.window_intervals // 2)


def credit(at: Situation) -> float:
    """What is left in groups times trees: the allowed share of full retrains, less what was spent.

    It is below zero while a shop's history is short: a new model that `learning.blend_within` asks
    for is not much cheaper then than a full retrain.
    """
    full = sum(each.full for each in at.past) + at.all_groups * parameters.FIRST_ROUNDS
    return at.learning.cost_share * full - sum(each.work for each in at.past)


def spent(names: Sequence[str], at: Situation) -> Spent:
    """What training these challengers costs, and what a full retrain would; see `rivals.best`."""
    rivals = 2 if len(names) > 1 else 1
    work = rivals * sum(_work(name, at) for name in names)
    return Spent(round(work, 1), float(at.all_groups * parameters.FIRST_ROUNDS))


def _work(name: str, at: Situation) -> float:
    learning, more = at.learning, parameters.rounds(at.learning, at.span)
    replayed = at.new_groups * (1 + learning.replay_ratio)
    return {
        "compact": at.window_groups * parameters.COMPACT_ROUNDS,
        "blend": at.window_groups * parameters.COMPACT_ROUNDS,
        "replay_boost": replayed * more,
        "adapt": at.new_groups * (REFIT_WORK * at.trees + parameters.ADAPT_ROUNDS),
        "refit_boost": at.new_groups * (REFIT_WORK * at.trees + more),
    }[name]


def mainstay(learning: Learning) -> str:
    """The usual challenger. Moving leaves heeds no monotone constraint, so it is no way there."""
    return "replay_boost" if learning.monotone else "refit_boost"


def over_budget(at: Situation) -> str | None:
    """The budget that continuing would pass; None if none."""
    more = parameters.rounds(at.learning, at.span)
    growth = 1 + more / max(at.trees, 1)
    gate = at.gate
    if at.trees + more > gate.max_trees:
        return f"{at.trees} + {more} trees would pass the budget of {gate.max_trees}"
    if (megabytes := at.megabytes * growth) > gate.max_megabytes:
        return f"{megabytes:.1f} MB would pass the budget of {gate.max_megabytes:.1f} MB"
    if at.score_ms * growth > gate.max_score_ms:
        return f"scoring would take longer than the budget of {gate.max_score_ms:.1f} ms"
    return None
