"""The gate: every rule, alone and closed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluate.bootstrap import UNKNOWN, Gain
from pipelines.evaluate.gate import Case, Comparison, Trial, judge
from pipelines.shared.declaration import Gate

GATE = Gate()
FORWARD = Comparison(300, 120, 0.25, Gain(0.01, 0.004, 0.016))
MEMORY = Comparison(200, 90, 0.24, Gain(0.0, -0.006, 0.006))
GOOD = Trial("boost", 120, 1.0, FORWARD, MEMORY)


def case(*trials: Trial, **changed: Any) -> Case:
    return replace(Case("the champion, version 3", first=False, trials=trials), **changed)


def test_a_better_challenger_is_taken_and_every_rule_says_so() -> None:
    verdict = judge(GATE, case(GOOD))
    assert (verdict.outcome, verdict.challenger) == ("promote", "boost")
    assert verdict.reasons == (
        "boost: forward NDCG@10 +0.0100 [+0.0040, +0.0160] on 300 groups: better than the "
        "champion, version 3",
        "boost: memory NDCG@10 +0.0000 [-0.0060, +0.0060] on 200 groups: at worst -0.0060, "
        "allowed -0.0100",
        "120 trees, allowed 500",
        "1 megabytes, allowed 20",
        "500 candidates are scored in the allowed 50 ms",
        "300 forward groups of 120 shoppers, needed 50 groups of 10 shoppers",
        "200 memory groups of 90 shoppers, needed 50 groups of 10 shoppers",
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"forward": replace(FORWARD, gain=Gain(0.01, 0.0, 0.02))}, "not provably better"),
        ({"forward": replace(FORWARD, gain=Gain(-0.01, -0.02, -0.001))}, "worse than"),
        ({"forward": replace(FORWARD, gain=UNKNOWN)}, "not a number"),
        ({"forward": replace(FORWARD, gain=Gain(0.01, math.inf, 0.02))}, "not a number"),
        ({"forward": replace(FORWARD, groups=49)}, "49 forward groups of 120 shoppers, too few"),
        ({"forward": replace(FORWARD, shoppers=9)}, "300 forward groups of 9 shoppers, too few"),
        ({"forward": Comparison()}, "0 forward groups"),
        ({"memory": replace(MEMORY, gain=Gain(-0.02, -0.03, -0.015))}, "it forgets"),
        ({"memory": replace(MEMORY, gain=Gain(-0.001, -0.03, 0.03))}, "too uncertain"),
        ({"memory": replace(MEMORY, gain=UNKNOWN)}, "not a number"),
        ({"memory": replace(MEMORY, groups=3)}, "3 memory groups of 90 shoppers, too few"),
        ({"memory": Comparison()}, "0 memory groups"),
        ({"trees": 501}, "501 trees, over budget: allowed 500"),
        ({"megabytes": 20.5}, "20.5 megabytes, over budget: allowed 20"),
        ({"megabytes": math.nan}, "nan megabytes, over budget"),
        ({"score_ms": 50.5}, "500 candidates are not scored in the allowed 50 ms"),
        ({"score_ms": math.nan}, "500 candidates are not scored"),
    ],
)
def test_one_broken_rule_is_enough_and_comes_first(changed: dict[str, Any], reason: str) -> None:
    verdict = judge(GATE, case(replace(GOOD, **changed)))
    assert verdict.outcome == "reject"
    assert reason in verdict.reasons[0]


@pytest.mark.parametrize(
    ("low", "outcome"), [(0.001, "promote"), (-0.005, "promote"), (-0.0051, "reject")]
)
def test_a_forced_model_need_only_be_no_worse(low: float, outcome: str) -> None:
    level = replace(FORWARD, gain=Gain(0.0, low, 0.01))
    verdict = judge(GATE, case(replace(GOOD, forward=level, forced=True)))
    assert verdict.outcome == outcome
    assert f"at worst {low:+.4f}, allowed -0.0050" in verdict.reasons[0]
    if low <= 0:
        assert judge(GATE, case(replace(GOOD, forward=level))).outcome == "reject"


def test_a_forced_first_model_must_beat_the_baseline() -> None:
    level = replace(FORWARD, gain=Gain(0.0, -0.001, 0.001))
    first = replace(GOOD, forward=level, forced=True)
    assert judge(GATE, case(first, first=True)).outcome == "reject"


def test_a_forced_model_of_unknown_gain_is_refused() -> None:
    unknown = replace(GOOD, forward=replace(FORWARD, gain=UNKNOWN), forced=True)
    assert judge(GATE, case(unknown)).outcome == "reject"


def test_the_better_challenger_is_judged() -> None:
    other = replace(GOOD, strategy="refit", forward=replace(FORWARD, ndcg_at_10=0.26))
    assert judge(GATE, case(GOOD, other)).challenger == "refit"
    broken = replace(GOOD, strategy="refit", forward=replace(FORWARD, ndcg_at_10=math.nan))
    assert judge(GATE, case(broken, GOOD)).challenger == "boost"


def test_a_first_model_has_nothing_to_forget() -> None:
    first = replace(GOOD, memory=Comparison())
    verdict = judge(GATE, case(first, first=True, against="the baseline"))
    assert verdict.outcome == "promote"
    assert not [reason for reason in verdict.reasons if "memory" in reason]


def test_a_refusal_stands_above_all_figures() -> None:
    verdict = judge(GATE, case(GOOD, refusal="warming up: 3 of 8 intervals with groups"))
    assert verdict.outcome == "reject"
    assert verdict.reasons == ("warming up: 3 of 8 intervals with groups",)


def test_nothing_to_judge_is_a_rejection() -> None:
    assert judge(GATE, case()).outcome == "reject"


numbers = st.floats(allow_nan=True, allow_infinity=True)
gains = st.builds(Gain, numbers, numbers, numbers)
comparisons = st.builds(Comparison, st.integers(0, 500), st.integers(0, 200), numbers, gains)


trials = st.builds(
    Trial,
    st.sampled_from(["boost", "refit"]),
    st.integers(0, 900),
    numbers,
    comparisons,
    comparisons,
)


@given(st.lists(trials, max_size=2, unique_by=lambda trial: trial.strategy), st.booleans())
def test_no_promotion_without_proof(trials: list[Trial], first: bool) -> None:
    verdict = judge(GATE, case(*trials, first=first))
    assert verdict.reasons
    if verdict.outcome == "promote":
        best = next(trial for trial in trials if trial.strategy == verdict.challenger)
        assert best.forward.gain.low > 0
        assert best.forward.groups >= GATE.min_groups
        assert best.trees <= GATE.max_trees
        assert first or best.memory.gain.low >= -GATE.memory_margin
