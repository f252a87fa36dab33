"""The gate: whether a challenger is provably better. It fails closed and says why.

Rules for the challenger with the best mean NDCG@10 on the forward holdout:

1. every figure is finite, and enough groups and shoppers stand behind it;
2. its trees, its bytes and the time in which it scores are within budget;
3. superiority: on the forward holdout the whole interval of its gain lies above zero. The best
   of k challengers looks better than it is, so each interval is widened (Bonferroni). A model
   that a budget forced, because the champion could not be continued, need only be non-inferior:
   the interval lies above minus a margin;
4. non-inferiority: on the memory holdout the interval of its gain lies above minus the margin.
   Few memory groups make a wide interval: what cannot be shown to be kept counts as forgotten,
   and the reason tells the two apart. A first model has nothing to forget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from pipelines.evaluate.bootstrap import UNKNOWN, Gain
from pipelines.shared.declaration import Gate
from pipelines.shared.ledger import Outcome

MIN_SHOPPERS = 10
"""Fewer clusters make a cluster bootstrap too sure of itself: Cameron, Gelbach and Miller,
"Bootstrap-based improvements for inference with clustered errors" (2008)."""


@dataclass(frozen=True)
class Comparison:
    """A challenger against what it would replace, on one holdout."""

    groups: int = 0
    shoppers: int = 0
    ndcg_at_10: float = math.nan
    """The challenger's mean."""
    gain: Gain = UNKNOWN


@dataclass(frozen=True)
class Trial:
    """One challenger as the gate sees it."""

    strategy: str
    trees: int
    megabytes: float
    forward: Comparison = field(default_factory=Comparison)
    memory: Comparison = field(default_factory=Comparison)
    forced: bool = False
    """The champion could not be continued: no worse is good enough."""
    score_ms: float = 0.0
    """99th percentile of the milliseconds that scoring 500 candidates took, on one thread."""


@dataclass(frozen=True)
class Case:
    """All that a verdict rests on."""

    against: str
    """What the challengers are compared with, in words."""
    first: bool
    """Whether there is no champion yet."""
    trials: tuple[Trial, ...] = ()
    refusal: str | None = None
    """Why no challenger can be taken, known before any comparison."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says, and why: the first reason is the deciding one."""

    outcome: Outcome
    challenger: str | None
    """The strategy of the challenger that was judged."""
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON holds it."""
        return {
            "outcome": self.outcome,
            "challenger": self.challenger,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class _Finding:
    holds: bool
    line: str


def judge(gate: Gate, case: Case) -> Verdict:
    """Judge the best challenger.

    Returns:
        `promote` only if every rule holds. A rejection lists the broken rules first.
    """
    if case.refusal is not None:
        return Verdict("reject", None, (case.refusal,))
    best = best_of(case.trials)
    if best is None:
        return Verdict("reject", None, ("there is no challenger; the champion stays",))
    splits = (("forward", best.forward), ("memory", best.memory))[: 1 if case.first else 2]
    data = [_enough(gate, split, comparison) for split, comparison in splits]
    proof = [_superior(gate, case, best), *([] if case.first else [_remembers(gate, best)])]
    budgets = [
        _within("trees", best.trees, gate.max_trees),
        _within("megabytes", best.megabytes, gate.max_megabytes),
        _quick(best.score_ms, gate.max_score_ms),
    ]
    broken = tuple(finding.line for finding in data + proof + budgets if not finding.holds)
    kept = tuple(finding.line for finding in proof + budgets + data if finding.holds)
    return Verdict("reject" if broken else "promote", best.strategy, broken + kept)


def best_of(trials: tuple[Trial, ...]) -> Trial | None:
    """The challenger with the highest mean NDCG@10 on the forward holdout; NaN comes last."""
    return max(
        trials,
        key=lambda trial: (_finite(trial.forward.ndcg_at_10), trial.strategy),
        default=None,
    )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _superior(gate: Gate, case: Case, best: Trial) -> _Finding:
    gain, groups = best.forward.gain, best.forward.groups
    what = f"{best.strategy}: forward NDCG@10 {gain} on {groups:,} groups"
    if not _known(gain):
        return _Finding(False, f"{best.strategy}: the gain on the forward holdout is not a number")
    if best.forced and not case.first:
        margin = gate.compact_margin
        allowed = f"{what}: at worst {gain.low:+.4f}, allowed {-margin:+.4f} in place of"
        return _Finding(gain.low >= -margin, f"{allowed} {case.against}, which is not continued")
    if gain.low > 0:
        return _Finding(True, f"{what}: better than {case.against}")
    if gain.high < 0:
        return _Finding(False, f"{what}: worse than {case.against}")
    return _Finding(False, f"{what}: not provably better than {case.against}")


def _remembers(gate: Gate, best: Trial) -> _Finding:
    gain, groups, margin = best.memory.gain, best.memory.groups, gate.memory_margin
    what = f"{best.strategy}: memory NDCG@10 {gain} on {groups:,} groups"
    if not _known(gain):
        return _Finding(False, f"{best.strategy}: the gain on the memory holdout is not a number")
    if gain.low >= -margin:
        return _Finding(True, f"{what}: at worst {gain.low:+.4f}, allowed {-margin:+.4f}")
    if gain.mean < -margin:
        return _Finding(False, f"{what}: it forgets, allowed {-margin:+.4f}")
    return _Finding(
        False, f"{what}: too uncertain to show that nothing is forgotten, allowed {-margin:+.4f}"
    )


def _enough(gate: Gate, split: str, comparison: Comparison) -> _Finding:
    holds = comparison.groups >= gate.min_groups and comparison.shoppers >= MIN_SHOPPERS
    return _Finding(
        holds,
        f"{comparison.groups:,} {split} groups of {comparison.shoppers:,} shoppers, "
        f"{'' if holds else 'too few: '}needed {gate.min_groups:,} groups of {MIN_SHOPPERS} "
        "shoppers",
    )


def _within(unit: str, value: float, limit: float) -> _Finding:
    holds = value <= limit
    return _Finding(
        holds, f"{value:,.4g} {unit}, {'' if holds else 'over budget: '}allowed {limit:,.4g}"
    )


def _quick(taken: float, limit: float) -> _Finding:
    """The time itself differs from one rerun to the next, so no reason tells it."""
    holds = taken <= limit
    how = "are" if holds else "are not"
    return _Finding(holds, f"500 candidates {how} scored in the allowed {limit:,.4g} ms")


def _known(gain: Gain) -> bool:
    return all(math.isfinite(value) for value in (gain.mean, gain.low, gain.high))
