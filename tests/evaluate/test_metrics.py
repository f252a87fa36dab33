"""The metrics: by hand, and against a plain loop."""

from __future__ import annotations

from math import isnan, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluate.metrics import Ranked, coverage, mean, per_group
from pipelines.shared.ranking import ranks


def ranked(groups: list[list[int]], relevant: list[int], ideal: list[float]) -> Ranked:
    """Labels a group, in item order."""
    sizes = [len(labels) for labels in groups]
    return Ranked(
        group=np.repeat(np.arange(len(groups)), sizes),
        item=np.concatenate([np.arange(size) for size in sizes]).astype(np.int64),
        label=np.array([label for labels in groups for label in labels], dtype=np.int64),
        ideal=np.array(ideal, dtype=np.float64),
        relevant=np.array(relevant, dtype=np.int64),
    )


def test_one_relevant_item_on_the_second_rank() -> None:
    scores = per_group(ranked([[0, 1, 0]], [1], [1.0]), np.array([3.0, 2.0, 1.0]))
    assert scores.ndcg_at_10[0] == pytest.approx(1 / log2(3))
    assert scores.mrr[0] == 1 / 2
    assert scores.recall_at_10[0] == 1.0


def test_the_ideal_counts_what_the_candidates_missed() -> None:
    # Three items were bought, one of them was a candidate, and it came first.
    ideal = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)
    scores = per_group(ranked([[1, 0]], [3], [ideal]), np.array([1.0, 0.0]))
    assert scores.ndcg_at_10[0] == pytest.approx((1 / log2(2)) / ideal)
    assert scores.recall_at_10[0] == pytest.approx(1 / 3)


def test_grades_gain_two_to_the_grade_less_one() -> None:
    ideal = (2**3 - 1) / log2(2) + (2**1 - 1) / log2(3)
    scores = per_group(ranked([[1, 3]], [2], [ideal]), np.array([2.0, 1.0]))
    worst = (2**1 - 1) / log2(2) + (2**3 - 1) / log2(3)
    assert scores.ndcg_at_10[0] == pytest.approx(worst / ideal)


def test_below_ten_counts_for_the_reciprocal_rank_only() -> None:
    scores = per_group(ranked([[0] * 10 + [1]], [1], [1.0]), -np.arange(11.0))
    assert (scores.ndcg_at_10[0], scores.recall_at_10[0]) == (0.0, 0.0)
    assert scores.mrr[0] == pytest.approx(1 / 11)


def test_ties_are_broken_by_the_item_not_by_the_row() -> None:
    group, item = np.zeros(3, np.int64), np.array([2, 0, 1])
    assert ranks(group, item, np.ones(3)).tolist() == [3, 1, 2]


def test_a_group_without_candidates_scores_nothing() -> None:
    empty = np.empty(0, np.int64)
    none = Ranked(empty, empty, empty, np.array([1.0]), np.array([2]))
    scores = per_group(none, np.empty(0))
    assert scores.ndcg_at_10.tolist() == scores.mrr.tolist() == scores.recall_at_10.tolist() == [0]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_spoils_its_group_and_the_mean(broken: float) -> None:
    data = ranked([[1, 0], [1, 0]], [1, 1], [1.0, 1.0])
    scores = per_group(data, np.array([2.0, broken, 2.0, 1.0]))
    assert np.isnan(scores.ndcg_at_10).tolist() == [True, False]
    assert isnan(mean(scores.ndcg_at_10))


def test_no_groups_have_no_mean() -> None:
    assert isnan(mean(np.empty(0)))


def test_coverage_is_the_share_of_the_catalogue_in_some_top_ten() -> None:
    data = ranked([[0] * 12, [0] * 12], [1, 1], [1.0, 1.0])
    down, up = -np.arange(12.0), np.arange(12.0)
    assert coverage(per_group(data, np.r_[down, down]), 100) == 10 / 100
    assert coverage(per_group(data, np.r_[down, up]), 100) == 12 / 100
    assert isnan(coverage(per_group(data, np.r_[down, up]), 0))


def test_numbers_of_unknown_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="group numbers"):
        Ranked(np.array([1]), np.array([0]), np.array([0]), np.array([1.0]), np.array([1]))


@st.composite
def slates(draw: st.DrawFn) -> tuple[Ranked, Any]:
    labels = draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=15), min_size=1))
    missed = draw(st.lists(st.lists(st.integers(1, 3), max_size=4), min_size=len(labels),
                           max_size=len(labels)))  # fmt: skip
    held = [[each for each in own if each] + more for own, more in zip(labels, missed, strict=True)]
    kept = [place for place, each in enumerate(held) if each]
    labels, held = [labels[place] for place in kept] or [[1]], [held[p] for p in kept] or [[1]]
    total = sum(map(len, labels))
    scores = draw(st.lists(st.integers(0, 4), min_size=total, max_size=total))
    ideals = [plain_dcg(sorted(each, reverse=True)) for each in held]
    return ranked(labels, list(map(len, held)), ideals), np.array(scores, dtype=np.float64)


def plain_dcg(labels: list[int]) -> float:
    return sum((2**label - 1) / log2(place + 2) for place, label in enumerate(labels[:10]))


@given(slates())
def test_all_at_once_equals_one_by_one(slate: tuple[Ranked, Any]) -> None:
    data, scores = slate
    found = per_group(data, scores)
    for group in range(len(data.ideal)):
        rows = np.flatnonzero(data.group == group)
        order = sorted(rows, key=lambda row: (-scores[row], data.item[row]))
        labels = [int(data.label[row]) for row in order]
        hits = [place for place, label in enumerate(labels, 1) if label]
        assert found.ndcg_at_10[group] == pytest.approx(plain_dcg(labels) / data.ideal[group])
        assert found.mrr[group] == (1 / hits[0] if hits else 0)
        top = sum(place <= 10 for place in hits)
        assert found.recall_at_10[group] == top / data.relevant[group]


@given(slates(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(slate: tuple[Ranked, Any], random: Any) -> None:
    data, scores = slate
    order = list(range(len(scores)))
    random.shuffle(order)
    shuffled = Ranked(
        data.group[order], data.item[order], data.label[order], data.ideal, data.relevant
    )
    one, other = per_group(data, scores), per_group(shuffled, scores[order])
    assert one.ndcg_at_10 == pytest.approx(other.ndcg_at_10)
    assert one.mrr.tolist() == other.mrr.tolist()
