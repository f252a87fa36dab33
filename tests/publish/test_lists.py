"""The lists: against a plain sort."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.publish.lists import UnsoundScores, top

rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(0, 5)),
    unique_by=lambda row: row[:2],
)


@given(rows, st.integers(1, 6))
def test_every_shopper_gets_the_best_items_in_order(
    made: list[tuple[str, int, int]], k: int
) -> None:
    candidates = pa.table(
        {
            "shopper_id": pa.array([row[0] for row in made], pa.string()),
            "item_id": pa.array([row[1] for row in made], pa.int64()),
        }
    )
    found = top(candidates, np.array([row[2] for row in made], dtype=np.float64), k)
    wanted = []
    for shopper in sorted({row[0] for row in made}):
        own = sorted((row for row in made if row[0] == shopper), key=lambda row: (-row[2], row[1]))
        wanted += [(shopper, rank, row[1], row[2]) for rank, row in enumerate(own[:k], 1)]
    assert [tuple(row.values()) for row in found.to_pylist()] == wanted


def test_a_score_that_is_no_number_publishes_nothing() -> None:
    candidates = pa.table({"shopper_id": ["a", "a"], "item_id": [1, 2]})
    with pytest.raises(UnsoundScores, match="1 of 2 candidates"):
        top(candidates, np.array([1.0, np.nan]), 20)
