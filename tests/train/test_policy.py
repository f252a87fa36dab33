"""The policy: one challenger by default, another where it is forced, due or wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shared.declaration import Gate, Learning
from pipelines.train import policy
from pipelines.train.history import History, TrainingCost
from pipelines.train.models import parameters
from pipelines.train.policy import Choice, PolicyState

COSTS = (TrainingCost(30_000.0, 400_000.0),) * 3
USUAL = PolicyState(
    learning=Learning(), gate=Gate(), mismatch=None, trees=100, megabytes=0.4, score_ms=5.0,
    span=1, behind=0.5, runs_since_alarm=None, new_groups=300, window_groups=4_800,
    all_groups=9_000, history=History((), COSTS, runs_since_new_model=2),
)  # fmt: skip


def _after(runs: int, *costs: TrainingCost) -> History:
    """The usual costs and some others, so many runs after a new model."""
    return History((), (*COSTS, *costs), runs)


def test_usually_one_challenger_is_trained() -> None:
    assert policy.choose(USUAL) == Choice(("refit_boost",))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mismatch": "version 3 has other features"}, "because version 3 has other features"),
        ({"unlearn": "version 3 learned from a shopper"}, "because version 3 learned from a"),
        ({"trees": 498}, "498 + 3 trees would pass the budget of 500"),
        ({"trees": 481, "span": 7}, "481 + 20 trees would pass"),
        ({"megabytes": 19.9}, "20.5 MB would pass the budget of 20.0 MB"),
        ({"score_ms": 49.9}, "longer than the budget of 50.0 ms"),
    ],
)
def test_what_cannot_be_continued_is_compacted_alone(
    changed: dict[str, object], reason: str
) -> None:
    chosen = policy.choose(replace(USUAL, behind=50.0, runs_since_alarm=0, **changed))  # type: ignore[arg-type]
    assert chosen.names == ("compact",)
    assert chosen.forced
    assert reason in chosen.notes[0]


def test_an_abrupt_change_puts_another_challenger_beside_the_usual_one() -> None:
    chosen = policy.choose(replace(USUAL, behind=4.5, runs_since_alarm=0))
    assert chosen.names == ("refit_boost", "adapt")
    assert "4.5 errors behind" in chosen.notes[0]
    assert policy.choose(replace(USUAL, behind=None)).names == ("refit_boost",)


def test_the_runs_after_a_change_adapt_also_where_a_new_model_is_due() -> None:
    chosen = policy.choose(replace(USUAL, runs_since_alarm=2, history=_after(9)))
    assert chosen == Choice(("adapt",), ("adapt: the champion fell far behind 2 runs ago",))


def test_no_new_model_learns_a_window_that_lies_mostly_before_the_change() -> None:
    rich = replace(USUAL, history=_after(30, TrainingCost(0.0, 9e9)))
    assert policy.reach(rich.learning) == 12
    waits = policy.choose(replace(rich, runs_since_alarm=5))
    assert waits.names == ("refit_boost",)
    assert waits.notes == ("no new model: the champion fell far behind 5 runs ago",)
    assert policy.choose(replace(rich, runs_since_alarm=None)).names == ("blend",)


def test_a_change_with_a_monotone_feature_is_a_compaction() -> None:
    bound = replace(USUAL, learning=Learning(monotone={"price": -1}), behind=4.5)
    chosen = policy.choose(replace(bound, runs_since_alarm=0))
    assert chosen.names == ("compact",)
    assert not chosen.forced
    assert policy.choose(replace(bound, runs_since_alarm=1)).names == ("replay_boost",)


def test_a_new_model_comes_when_it_is_paid_for_or_overdue() -> None:
    due = replace(USUAL, history=_after(3))
    credit = 0.055 * (1_200_000 + 900_000) - 90_000
    assert policy.credit(due) == pytest.approx(credit)
    price = policy.cost(("blend",), due)
    assert price == TrainingCost(4_800 * parameters.COMPACT_ROUNDS, 900_000.0)
    assert policy.choose(due).names == ("refit_boost",)
    saved = TrainingCost(0.0, (price.work - credit) / 0.055 + 1)
    rich = replace(due, history=_after(3, saved))
    assert policy.choose(rich).names == ("blend",)
    assert not policy.choose(rich).forced
    assert policy.choose(replace(rich, history=_after(2, saved))).names == ("refit_boost",)
    late = policy.choose(replace(due, history=_after(4)))
    assert late == Choice(("blend",), ("blend: no new model for 4 runs",))


@given(
    weeks=st.integers(20, 60),
    share=st.floats(0.02, 0.5),
    groups=st.integers(20, 5_000),
    trees=st.integers(60, 200),
)
def test_over_time_no_more_is_spent_than_allowed_where_no_new_model_is_overdue(
    weeks: int, share: float, groups: int, trees: int
) -> None:
    learning = Learning(cost_share=share, blend_within=weeks)
    usual, history = 0.0, History()
    for week in range(12, weeks):
        at = replace(
            USUAL, learning=learning, trees=trees, new_groups=groups,
            window_groups=groups * min(week, learning.window_intervals),
            all_groups=groups * week, history=history, behind=None,
        )  # fmt: skip
        chosen = policy.choose(at)
        history = history.after(chosen.names, None, policy.cost(chosen.names, at))
        usual += policy.cost(("refit_boost",), at).work
    allowed = max(share * sum(each.full for each in history.costs), usual)
    assert sum(each.work for each in history.costs) <= allowed + 1


def test_nothing_is_refitted_where_a_feature_must_be_monotone() -> None:
    learning = Learning(monotone={"price": -1})
    assert policy.choose(replace(USUAL, learning=learning)).names == ("replay_boost",)
    names = ("category", "price")
    bound = parameters.parameters(learning, names, rows=1000, threads=1)
    assert bound["monotone_constraints"] == [0, -1]
    assert "monotone_constraints" not in parameters.parameters(Learning(), names, 1000, 1)
