"""Decides which challengers a run trains: by what is allowed, what is due and what it may cost.

One by default. Other features or a passed budget leave no choice but a new model, and every few
runs a new model is blended with the champion. After an abrupt change a second challenger is
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

MIN_RUNS_BETWEEN: Final = 4
"""The fewest runs from one new model to the next, however much was saved."""
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
    runs_since_alarm: int | None
    """See `drift.runs_since_alarm` and `reach`; the run at hand counts."""
    new_groups: int
    window_groups: int
    """Groups that a compaction would learn from."""
    all_groups: int
    """Groups that a full retrain would learn from."""
    history: History
    unlearn: str | None = None
    """Why the parent must not be continued although its trees would read today's groups."""


@dataclass(frozen=True)
class Choice:
    """Which strategies a run trains, and why."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    forced: bool = False
    """Nothing could be continued: the challenger must only not be worse (law 9)."""


def choose(state: PolicyState) -> Choice:
    """The challengers of a run: one strategy, or the usual one and another to compare it with."""
    if why := state.mismatch or state.unlearn:
        return Choice(("compact",), (f"compact, because {why}",), forced=True)
    usual = usual_strategy(state.learning)
    if why := over_budget(state):
        return Choice(("compact",), (f"compact instead of {usual}, because {why}",), forced=True)
    if state.runs_since_alarm is not None:
        return _after_a_change(state, usual, state.runs_since_alarm)
    runs = state.history.runs_since_new_model
    if runs + 1 >= state.learning.blend_within:
        return Choice(("blend",), (f"blend: no new model for {runs} runs",))
    if runs + 1 >= MIN_RUNS_BETWEEN and credit(state) >= _work("blend", state):
        return Choice(("blend",), ("blend: earlier runs have saved what it costs",))
    return Choice((usual,))


def _after_a_change(state: PolicyState, usual: str, runs: int) -> Choice:
    """Learn the new groups faster at an alarm and in the runs after it.

    A new model would learn a window of before the change, until half of it lies after. A refit
    respects no monotone constraint: a shop that declares one gets a new model at once instead.
    """
    if runs == 0:
        fell = f"the champion is {state.behind or 0:.1f} errors behind its past"
        if state.learning.monotone:
            return Choice(("compact",), (f"compact: {fell}",))
        return Choice((usual, "adapt"), (f"adapt beside {usual}: {fell}",))
    past = f"the champion fell far behind {runs} runs ago"
    if runs <= RECOVERY and not state.learning.monotone:
        return Choice(("adapt",), (f"adapt: {past}",))
    if state.history.runs_since_new_model + 1 >= state.learning.blend_within:
        return Choice((usual,), (f"no new model: {past}",))
    return Choice((usual,))


def reach(learning: Learning) -> int:
    """How many runs back an alarm matters: until half of a window lies after it."""
    return max(RECOVERY, learning.window_intervals // 2)


def credit(state: PolicyState) -> float:
    """The account in groups times trees: the allowed share of full retrains, less what was spent.

    It is below zero while a shop's history is short: a new model that `learning.blend_within` asks
    for is not much cheaper then than a full retrain.
    """
    costs = state.history.costs
    full = sum(each.full for each in costs) + state.all_groups * parameters.FIRST_ROUNDS
    return state.learning.cost_share * full - sum(each.work for each in costs)


def cost(names: Sequence[str], state: PolicyState) -> TrainingCost:
    """What these challengers cost: of several the best is trained twice (`preselection.best`)."""
    times = 2 if len(names) > 1 else 1
    work = times * sum(_work(name, state) for name in names)
    return TrainingCost(round(work, 1), float(state.all_groups * parameters.FIRST_ROUNDS))


def _work(name: str, state: PolicyState) -> float:
    learning, more = state.learning, parameters.rounds(state.learning, state.span)
    replayed = state.new_groups * (1 + learning.replay_ratio)
    return {
        "compact": state.window_groups * parameters.COMPACT_ROUNDS,
        "blend": state.window_groups * parameters.COMPACT_ROUNDS,
        "replay_boost": replayed * more,
        "adapt": state.new_groups * (REFIT_WORK * state.trees + parameters.ADAPT_ROUNDS),
        "refit_boost": state.new_groups * (REFIT_WORK * state.trees + more),
    }[name]


def usual_strategy(learning: Learning) -> str:
    """The usual strategy: a refit, unless a feature must be monotone, which no refit respects."""
    return "replay_boost" if learning.monotone else "refit_boost"


def over_budget(state: PolicyState) -> str | None:
    """The budget that continuing would pass; None if none."""
    more = parameters.rounds(state.learning, state.span)
    growth = 1 + more / max(state.trees, 1)
    gate = state.gate
    if state.trees + more > gate.max_trees:
        return f"{state.trees} + {more} trees would pass the budget of {gate.max_trees}"
    if (megabytes := state.megabytes * growth) > gate.max_megabytes:
        return f"{megabytes:.1f} MB would pass the budget of {gate.max_megabytes:.1f} MB"
    if state.score_ms * growth > gate.max_score_ms:
        return f"scoring would take longer than the budget of {gate.max_score_ms:.1f} ms"
    return None
