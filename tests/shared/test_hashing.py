"""Draws depend on the values and the salt alone."""

import numpy as np
import pyarrow as pa

from pipelines.shared.hashing import draw


def test_a_draw_is_the_same_for_the_same_row_in_any_company():
    alone = draw("memory", ["b"])
    together = draw("memory", ["a", "b", "c"])
    assert alone[0] == together[1]


def test_salts_draw_independently():
    ids = np.arange(20_000)
    left, right = draw("memory", ids), draw("negatives", ids)
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.03


def test_draws_are_uniform():
    draws = draw("memory", np.arange(100_000))
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert counts.min() > 9_600
    assert counts.max() < 10_400


def test_arrow_and_numpy_draw_alike():
    ids = [3, 1, 2]
    assert np.array_equal(draw("s", np.array(ids)), draw("s", pa.array(ids)))
