"""Exposure weights of logged lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.train.data import weights


def _of(places: list[float], labels: list[int], sizes: list[int], power: float) -> np.ndarray:
    return weights.exposure(
        np.array(places, float), np.array(labels, np.float32), np.array(sizes), power
    )


def test_a_choice_far_down_the_list_stands_for_more() -> None:
    weight = _of([1, 2, 3, 4], [1, 0, 0, 1], [4], 0.5)
    raw = np.array([1.0, 1.0, 1.0, 2.0])
    assert weight == pytest.approx(raw / raw.mean())


def test_places_may_start_anywhere_and_be_unknown() -> None:
    assert _of([7, 8, 10], [0, 0, 1], [3], 1) == pytest.approx(np.array([1, 1, 4]) / 2)
    assert _of([np.nan, np.nan], [1, 0], [2], 1) == pytest.approx([1, 1])


def test_weights_are_clipped() -> None:
    weight = _of([1, 10_000], [0, 1], [2], 1)
    assert weight[1] / weight[0] == pytest.approx(weights.CLIP)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), min_size=1, max_size=9),
        max_size=6,
    ),
    st.floats(0, 2),
)
def test_every_group_weighs_as_many_as_its_rows(groups, power) -> None:
    sizes = [len(group) for group in groups]
    flat = [row for group in groups for row in group]
    weight = _of([row[0] for row in flat], [row[1] for row in flat], sizes, power)
    assert (weight > 0).all()
    start = 0
    for size in sizes:
        assert weight[start : start + size].sum() == pytest.approx(size, rel=1e-5)
        start += size
    if power == 0:
        assert weight == pytest.approx(np.ones(len(flat)))
