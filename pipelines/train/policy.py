"""Decides which challengers a run trains: by what is allowed, what is due and what it may cost.

One by default. Other features or a passed budget leave no choice but a new model, and every few
runs a new model is averaged with the champion. After an abrupt change a second challenger is
trained beside the usual one, and the better of the two goes to the gate (`train/preselection.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.shared.declaration import Gate, Learning
from pipelines.train.drift import RECOVERY
from pipelines.train.history import History, TrainingCost
from pipelines.train.models import parameters

LEAST_BETWEEN: Final = 4
"""Runs from one new model to the next at least."""
REFIT_WORK: Final = 0.75
"""Refitting a tree's leaves, as a part of growing it, as measured."""


@dataclass(frozen=True)
class PolicyState:
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
    history: History


@dataclass(frozen=True)
class Choice:
    """Which strategies a run trains, and why."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    forced: bool = False
    """Nothing could be continued: the challenger must only not be worse (law 9)."""


def choose(at: PolicyState) -> Choice:
    """The challengers of a run.

    Returns:
        One strategy, or the usual one and another to compare it with.
    """
    if at.mismatch:
        return Choice(("compact",), (f"compact, because {at.mismatch}",), forced=True)
    usual = mainstay(at.learning)
    if why := over_budget(at):
        return Choice(("compact",), (f"compact instead of {usual}, because {why}",), forced=True)
    if at.since_alarm is not None:
        return _after_a_change(at, usual, at.since_alarm)
    runs = at.history.runs_since_new_model
    if runs + 1 >= at.learning.blend_within:
        return Choice(("blend",), (f"blend: no new model for {runs} runs",))
    if runs + 1 >= LEAST_BETWEEN and credit(at) >= _work("blend", at):
        return Choice(("blend",), ("blend: earlier runs have saved what it costs",))
    return Choice((usual,))


def _after_a_change(at: PolicyState, usual: str, runs: int) -> Choice:
    """Learn the new groups faster at an alarm and in the runs after it.

    A new model would learn a window of before the change, until half of it lies after. A refit
    respects no monotone constraint: a shop that declares one gets a new model at once instead.
    """
    if runs == 0:
        fell = f"the champion is {at.behind or 0:.1f} errors behind its past"
        if at.learning.monotone:
            return Choice(("compact",), (f"compact: {fell}",))
        return Choice((usual, "adapt"), (f"adapt beside {usual}: {fell}",))
    past = f"the champion fell far behind {runs} runs ago"
    if runs <= RECOVERY and not at.learning.monotone:
        return Choice(("adapt",), (f"adapt: {past}",))
    if at.history.runs_since_new_model + 1 >= at.learning.blend_within:
        return Choice((usual,), (f"no new model: {past}",))
    return Choice((usual,))


def reach(learning: Learning) -> int:
    """How many runs back an alarm matters: until half of a window lies after it."""
    return max(RECOVERY, learning.window_intervals // 2)


def credit(at: PolicyState) -> float:
    """The account in groups times trees: the allowed share of full retrains, less what was spent.

    It is below zero while a shop's history is short: a new model that `learning.blend_within` asks
    for is not much cheaper then than a full retrain.
    """
    costs = at.history.costs
    full = sum(each.full for each in costs) + at.all_groups * parameters.FIRST_ROUNDS
    return at.learning.cost_share * full - sum(each.work for each in costs)


def cost(names: Sequence[str], at: PolicyState) -> TrainingCost:
    """What these challengers cost: of several the best is trained twice (`preselection.best`)."""
    times = 2 if len(names) > 1 else 1
    work = times * sum(_work(name, at) for name in names)
    return TrainingCost(round(work, 1), float(at.all_groups * parameters.FIRST_ROUNDS))


def _work(name: str, at: PolicyState) -> float:
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
    """The usual strategy: a refit, unless a feature must be monotone, which no refit respects."""
    return "replay_boost" if learning.monotone else "refit_boost"


def over_budget(at: PolicyState) -> str | None:
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
