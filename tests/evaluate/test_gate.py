"""The gate: every rule, alone and closed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluate.bootstrap import UNKNOWN, Gain
from pipelines.evaluate.compare import Comparison, Contender, PairedGain
from pipelines.evaluate.gate import Verdict, verdict
from pipelines.shared.declaration import Gate
from pipelines.shared.intervals import utc

GATE = Gate()
FORWARD = PairedGain(300, 120, 0.25, Gain(0.01, 0.004, 0.016))
MEMORY = PairedGain(200, 90, 0.24, Gain(0.0, -0.006, 0.006))


def measured(name: str, **values: Any) -> Contender:
    return replace(Contender(name, Path("unread"), utc("2017-01-02"), 120), **values)


GOOD = measured("boost", megabytes=1.0, forward=FORWARD, memory=MEMORY)


def asked(*challengers: Contender, parent: int | None = 3, **named: Any) -> Verdict:
    """The gate's verdict, the champion being version 3 unless a test says otherwise."""
    return verdict(GATE, Comparison(parent, challengers=challengers), **named)


def test_a_better_challenger_is_taken_and_every_rule_says_so() -> None:
    given = asked(GOOD)
    assert (given.outcome, given.challenger) == ("promote", "boost")
    parts = (
        ("forward", "+0.0100 [+0.0040, +0.0160] on 300 groups", "better than", "version 3"),
        ("memory", "+0.0000 [-0.0060, +0.0060] on 200 groups", "-0.0060, allowed -0.0100"),
        ("120 trees", "allowed 500"),
        ("1 megabytes", "allowed 20"),
        ("500 candidates are scored in", "allowed 50"),
        ("300 forward groups of 120 shoppers", "needed 50 groups of 10 shoppers"),
        ("200 memory groups of 90 shoppers", "needed 50 groups of 10 shoppers"),
    )
    for reason, expected in zip(given.reasons, parts, strict=True):
        assert [part for part in expected if part not in reason] == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"forward": replace(FORWARD, gain=Gain(0.01, 0.0, 0.02))}, "not provably better"),
        ({"forward": replace(FORWARD, gain=Gain(-0.01, -0.02, -0.001))}, "worse than"),
        ({"forward": replace(FORWARD, gain=UNKNOWN)}, "not a number"),
        ({"forward": replace(FORWARD, gain=Gain(0.01, math.inf, 0.02))}, "not a number"),
        ({"forward": replace(FORWARD, groups=49)}, "49 forward groups of 120 shoppers, too few"),
        ({"forward": replace(FORWARD, shoppers=9)}, "300 forward groups of 9 shoppers, too few"),
        ({"forward": PairedGain()}, "0 forward groups"),
        ({"memory": replace(MEMORY, gain=Gain(-0.02, -0.03, -0.015))}, "it forgets"),
        ({"memory": replace(MEMORY, gain=Gain(-0.001, -0.03, 0.03))}, "too uncertain"),
        ({"memory": replace(MEMORY, gain=UNKNOWN)}, "not a number"),
        ({"memory": replace(MEMORY, groups=3)}, "3 memory groups of 90 shoppers, too few"),
        ({"memory": PairedGain()}, "0 memory groups"),
        ({"trees": 501}, "501 trees, over budget: allowed 500"),
        ({"megabytes": 20.5}, "20.5 megabytes, over budget: allowed 20"),
        ({"megabytes": math.nan}, "nan megabytes, over budget"),
        ({"score_ms": 50.5}, "scored in 50.5 ms, over budget: allowed 50"),
        ({"score_ms": math.nan}, "scored in nan ms, over budget"),
    ],
)
def test_one_broken_rule_is_enough_and_comes_first(changed: dict[str, Any], reason: str) -> None:
    given = asked(replace(GOOD, **changed))
    assert given.outcome == "reject"
    assert reason in given.reasons[0]


@pytest.mark.parametrize(
    ("low", "outcome"), [(0.001, "promote"), (-0.005, "promote"), (-0.0051, "reject")]
)
def test_a_forced_model_need_only_be_no_worse(low: float, outcome: str) -> None:
    level = replace(FORWARD, gain=Gain(0.0, low, 0.01))
    given = asked(replace(GOOD, forward=level, forced=True))
    assert given.outcome == outcome
    assert f"at worst {low:+.4f}, allowed -0.0050" in given.reasons[0]
    if low <= 0:
        assert asked(replace(GOOD, forward=level)).outcome == "reject"


def test_a_forced_first_model_must_beat_the_baseline() -> None:
    level = replace(FORWARD, gain=Gain(0.0, -0.001, 0.001))
    first = replace(GOOD, forward=level, forced=True)
    assert asked(first, parent=None).outcome == "reject"


def test_a_forced_model_of_unknown_gain_is_refused() -> None:
    unknown = replace(GOOD, forward=replace(FORWARD, gain=UNKNOWN), forced=True)
    assert asked(unknown).outcome == "reject"


def test_the_better_challenger_is_judged() -> None:
    other = replace(GOOD, name="refit", forward=replace(FORWARD, ndcg_at_10=0.26))
    assert asked(GOOD, other).challenger == "refit"
    broken = replace(GOOD, name="refit", forward=replace(FORWARD, ndcg_at_10=math.nan))
    assert asked(broken, GOOD).challenger == "boost"


def test_a_first_model_has_nothing_to_forget() -> None:
    first = replace(GOOD, memory=PairedGain())
    given = asked(first, parent=None)
    assert given.outcome == "promote"
    assert not [reason for reason in given.reasons if "memory" in reason]


def test_history_is_never_rewritten_however_good_the_challenger() -> None:
    given = asked(GOOD, overtaken_by="2017-03-06T00:00:00Z")
    assert (given.outcome, given.challenger) == ("reject", None)
    [reason] = given.reasons
    assert "2017-03-06T00:00:00Z was decided already" in reason


def test_a_failed_comparison_is_the_only_reason() -> None:
    failed = Comparison(3, challengers=(GOOD,), failure="the comparison failed (KeyError)")
    assert verdict(GATE, failed) == Verdict("reject", None, ("the comparison failed (KeyError)",))


def test_without_a_challenger_the_champion_stays_and_training_says_why() -> None:
    warming = "warming up: 3 of 8 intervals with groups"
    assert asked(untrained=warming) == Verdict("reject", None, (warming,))
    given = asked()
    assert given.outcome == "reject"
    assert "no challenger" in given.reasons[0]


numbers = st.floats(allow_nan=True, allow_infinity=True)
gains = st.one_of(
    st.builds(Gain, numbers, numbers, numbers),
    # The gains of sound comparisons, so that a promotion is reached too.
    st.sampled_from([FORWARD.gain, MEMORY.gain, Gain(0.02, 0.001, 0.04)]),
)
paired = st.builds(PairedGain, st.integers(0, 500), st.integers(0, 200), numbers, gains)
challengers = st.builds(
    measured,
    st.sampled_from(["boost", "refit"]),
    trees=st.integers(0, 900),
    megabytes=st.one_of(numbers, st.just(1.0)),
    forward=paired,
    memory=paired,
)


def passes(each: Contender, first: bool) -> bool:
    """The rules of the gate, written down a second time."""

    def proven(paired: PairedGain, least: float) -> bool:
        edges = (paired.gain.mean, paired.gain.low, paired.gain.high)
        enough = paired.groups >= GATE.min_groups and paired.shoppers >= 10
        return enough and all(map(math.isfinite, edges)) and paired.gain.low >= least

    return (
        proven(each.forward, math.nextafter(0, 1))
        and (first or proven(each.memory, -GATE.memory_margin))
        and each.trees <= GATE.max_trees
        and each.megabytes <= GATE.max_megabytes
    )


@given(st.lists(challengers, max_size=2, unique_by=lambda each: each.name), st.booleans())
def test_a_promotion_is_exactly_a_proof(challengers: list[Contender], first: bool) -> None:
    given = asked(*challengers, parent=None if first else 3)
    named = [each for each in challengers if each.name == given.challenger]
    assert bool(named) == bool(challengers)
    assert given.outcome == ("promote" if named and passes(named[0], first) else "reject")
    finite = [each for each in challengers if math.isfinite(each.forward.ndcg_at_10)]
    if finite:
        best = max(each.forward.ndcg_at_10 for each in finite)
        assert named[0].forward.ndcg_at_10 == best


def test_a_champion_that_cannot_be_scored_is_replaced_by_what_beats_the_baseline() -> None:
    unscorable = "the champion, version 3, wants features that the shop no longer has: price"
    forced = replace(GOOD, forced=True, memory=PairedGain())
    given = verdict(GATE, Comparison(3, unscorable=unscorable, challengers=(forced,)))
    assert given.outcome == "promote"
    assert "better than the baseline" in given.reasons[0]
    assert given.reasons[-1] == unscorable
    even = replace(forced, forward=replace(GOOD.forward, gain=Gain(0.0, -0.001, 0.001)))
    assert verdict(GATE, Comparison(3, unscorable=unscorable, challengers=(even,))).outcome == (
        "reject"
    )
