"""The promotion gate: whether a challenger is provably better. It fails closed and says why.

Rules for the challenger with the best mean NDCG@10 on the forward holdout:

1. every figure is finite, and enough groups and shoppers stand behind it;
2. its trees, its bytes and the time in which it scores are within budget;
3. superiority: on the forward holdout the whole interval of its gain lies above zero. The best
   of k challengers looks better than it is, so each interval is widened (Bonferroni). A model
   that a budget forced, because the champion could not be continued, must only be non-inferior:
   the interval lies above minus a margin;
4. non-inferiority: on the memory holdout the interval of its gain lies above minus the margin.
   Few memory groups make a wide interval: what cannot be shown to be kept counts as forgotten,
   and the reason tells the two apart. A first model has nothing to forget,
   nor one that replaces a champion which can no longer be scored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.evaluate.bootstrap import Gain
from pipelines.evaluate.compare import Comparison, Contender, PairedGain
from pipelines.shared.declaration import Gate
from pipelines.shared.ledger import Outcome

MIN_SHOPPERS = 10
"""Fewer clusters make a cluster bootstrap too sure of itself: Cameron, Gelbach and Miller,
"Bootstrap-based improvements for inference with clustered errors" (2008)."""


@dataclass(frozen=True)
class Verdict:
    """What the gate decides, and why: the first reason is the deciding one."""

    outcome: Outcome
    challenger: str | None
    """The strategy of the challenger that was examined."""
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Check:
    holds: bool
    reason: str


def verdict(
    gate: Gate,
    comparison: Comparison,
    untrained: str | None = None,
    overtaken_by: str | None = None,
) -> Verdict:
    """Examine the best challenger: `promote` only if every rule holds; broken rules come first.

    `untrained` is why there is none; `overtaken_by` the end of a later interval decided already.
    """
    best = comparison.best
    if overtaken_by is not None:
        return _reject(
            f"the later interval that ends {overtaken_by} was decided already; replaying history "
            "never dethrones a newer champion"
        )
    if comparison.failure is not None:
        return _reject(comparison.failure)
    if best is None:
        return _reject(untrained or "there is no challenger; the champion stays")
    first = comparison.parent is None or comparison.unscorable is not None
    data = [_enough(gate, "forward", best.forward)]
    proof = [_superior(gate, None if first else comparison.parent, best)]
    if not first:
        data.append(_enough(gate, "memory", best.memory))
        proof.append(_retained(gate, best))
    budgets = [
        _within("trees", best.trees, gate.max_trees),
        _within("megabytes", best.megabytes, gate.max_megabytes),
        _fast(best.score_ms, gate.max_score_ms),
    ]
    broken = tuple(check.reason for check in data + proof + budgets if not check.holds)
    kept = tuple(check.reason for check in proof + budgets + data if check.holds)
    noted = (comparison.unscorable,) if comparison.unscorable else ()
    return Verdict("reject" if broken else "promote", best.name, broken + kept + noted)


def _reject(reason: str) -> Verdict:
    return Verdict("reject", None, (reason,))


def _superior(gate: Gate, parent: int | None, best: Contender) -> _Check:
    against = (
        "the baseline, the shopper's own purchase counts"
        if parent is None
        else f"the champion, version {parent}"
    )
    gain, groups = best.forward.gain, best.forward.groups
    what = f"{best.name}: forward NDCG@10 {gain} on {groups:,} groups"
    if not _finite(gain):
        return _Check(False, f"{best.name}: the gain on the forward holdout is not a number")
    if best.forced and parent is not None:
        margin = gate.compact_margin
        allowed = f"{what}: at worst {gain.low:+.4f}, allowed {-margin:+.4f} in place of"
        return _Check(gain.low >= -margin, f"{allowed} {against}, which is not continued")
    if gain.low > 0:
        return _Check(True, f"{what}: better than {against}")
    if gain.high < 0:
        return _Check(False, f"{what}: worse than {against}")
    return _Check(False, f"{what}: not provably better than {against}")


def _retained(gate: Gate, best: Contender) -> _Check:
    gain, groups, margin = best.memory.gain, best.memory.groups, gate.memory_margin
    what = f"{best.name}: memory NDCG@10 {gain} on {groups:,} groups"
    if not _finite(gain):
        return _Check(False, f"{best.name}: the gain on the memory holdout is not a number")
    if gain.low >= -margin:
        return _Check(True, f"{what}: at worst {gain.low:+.4f}, allowed {-margin:+.4f}")
    if gain.mean < -margin:
        return _Check(False, f"{what}: it forgets, allowed {-margin:+.4f}")
    return _Check(
        False, f"{what}: too uncertain to show that nothing is forgotten, allowed {-margin:+.4f}"
    )


def _enough(gate: Gate, split: str, paired: PairedGain) -> _Check:
    holds = paired.groups >= gate.min_groups and paired.shoppers >= MIN_SHOPPERS
    return _Check(
        holds,
        f"{paired.groups:,} {split} groups of {paired.shoppers:,} shoppers, "
        f"{'' if holds else 'too few: '}needed {gate.min_groups:,} groups of {MIN_SHOPPERS} "
        "shoppers",
    )


def _within(unit: str, value: float, limit: float) -> _Check:
    holds = value <= limit
    return _Check(
        holds, f"{value:,.4g} {unit}, {'' if holds else 'over budget: '}allowed {limit:,.4g}"
    )


def _fast(taken: float, limit: float) -> _Check:
    holds = taken <= limit
    return _Check(
        holds,
        f"500 candidates are scored in {taken:,.3g} ms, "
        f"{'' if holds else 'over budget: '}allowed {limit:,.4g}",
    )


def _finite(gain: Gain) -> bool:
    return all(math.isfinite(value) for value in (gain.mean, gain.low, gain.high))
