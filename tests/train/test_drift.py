"""How a model fares on new groups, and when that is an alarm."""

from __future__ import annotations

from math import log2

import numpy as np
import pyarrow as pa
import pytest

from pipelines.train import drift
from pipelines.train.data.examples import Examples
from pipelines.train.drift import Health


def _examples(labels: list[list[int]]) -> Examples:
    flat = np.array([label for group in labels for label in group], np.float32)
    return Examples(
        pa.table({"x": flat}), flat, np.array([len(group) for group in labels]),
        pa.array([str(place) for place in range(len(labels))]), np.ones(len(flat), np.float32),
    )  # fmt: skip


def test_ndcg_shows_the_arithmetic() -> None:
    examples = _examples([[0, 1, 0], [3, 0, 1]])
    values = drift.ndcg(examples, np.array([0.9, 0.5, 0.1, 0.1, 0.9, 0.5]))
    ideal = 7 / log2(2) + 1 / log2(3)
    assert values == pytest.approx([1 / log2(3), (1 / log2(3) + 7 / log2(4)) / ideal])


def test_only_the_first_ten_count() -> None:
    examples = _examples([[0] * 10 + [1]])
    assert drift.ndcg(examples, -np.arange(11.0)) == pytest.approx([0.0])
    assert drift.ndcg(examples, np.arange(11.0)) == pytest.approx([1.0])


def test_the_mean_comes_with_its_standard_error() -> None:
    examples = _examples([[1, 0], [1, 0], [1, 0], [1, 0]])
    scores = np.array([1.0, 0, 1, 0, 0, 1, 0, 1])
    health = drift.measure(examples, scores)
    low = 1 / log2(3)
    assert health.ndcg_at_10 == pytest.approx((1 + low) / 2)
    assert health.error == pytest.approx(np.std([1, 1, low, low], ddof=1) / 2)
    assert Health(**health.as_dict()).groups == health.groups == 4


def test_a_fall_counts_in_errors_and_only_beside_a_past() -> None:
    past = [Health(value, 0.01, 300) for value in (0.40, 0.42, 0.41, 0.39)]
    assert drift.behind(Health(0.30, 0.01, 300), past[:2]) is None
    fell = drift.behind(Health(0.30, 0.01, 300), past)
    spread = np.hypot(0.01, 1.4826 * 0.01)
    assert fell == pytest.approx((0.405 - 0.30) / spread)
    rose = drift.behind(Health(0.45, 0.01, 300), past)
    assert rose is not None
    assert rose < 0


def test_only_the_last_runs_are_the_past() -> None:
    old = [Health(0.9, 0.01, 300)] * 20
    recent = [Health(value, 0.01, 300) for value in (0.40, 0.42) * 4]
    behind = drift.behind(Health(0.41, 0.01, 300), old + recent)
    assert behind == pytest.approx(0.0, abs=1e-9)


def test_a_change_is_an_alarm_until_what_is_usual_has_changed_or_it_is_made_good() -> None:
    """Levels as a permuted year had them: usual, fallen, half recovered, recovered."""
    usual = [Health(value, 0.02, 400) for value in (0.54, 0.55, 0.55, 0.52, 0.56, 0.53)]
    fallen, half, well = (Health(value, 0.02, 400) for value in (0.11, 0.29, 0.56))
    assert drift.runs_since_alarm(usual, 4.0, 4) is None
    assert drift.runs_since_alarm([*usual, fallen], 4.0, 4) == 0
    assert drift.runs_since_alarm([*usual, fallen, half], 4.0, 4) == 0
    assert drift.runs_since_alarm([*usual, fallen, half, well], 4.0, 4) == 1
    assert drift.runs_since_alarm([*usual, fallen, half, *[well] * 4], 4.0, 4) == 4
    assert drift.runs_since_alarm([*usual, fallen, half, *[well] * 5], 4.0, 4) is None
    assert drift.runs_since_alarm([*usual, fallen, half, *[well] * 5], 4.0, 12) == 5
    assert drift.runs_since_alarm([*usual, *[fallen] * 12], 4.0, 4) is None
