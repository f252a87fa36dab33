"""The recommenders to beat: what each puts first, and what fills a short list."""

from __future__ import annotations

from math import log2

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from benchmarks.features import quality, rivals
from benchmarks.features.rivals import RIVALS, Orders
from pipelines.evaluate.holdouts import Holdout
from pipelines.evaluate.metrics import Ranked


def _orders() -> Orders:
    """Ann bought 1 thrice, 2 once and lately, 3 twice; item 9 is what everyone buys."""
    rows = [("ann", item, f"a{age}", age) for item, ages in
            {1: (40, 50, 60), 2: (3,), 3: (30, 45)}.items() for age in ages]  # fmt: skip
    rows += [(f"s{number}", 9, f"b{number}", 5) for number in range(4)]
    rows += [(f"s{number}", 8, f"b{number}", 5) for number in range(2)]
    return Orders(pd.DataFrame(rows, columns=["shopper", "item", "order", "age"]))


def _list(name: str, shopper: str) -> list[int]:
    lists = RIVALS[name](_orders(), np.array([shopper], dtype=object))
    return lists.sort_values("place")["item"].astype(int).tolist()


def test_most_popular_counts_four_weeks() -> None:
    assert _list("most_popular", "ann") == [9, 8, 2]


def test_last_purchased_is_by_recency_and_filled_with_what_is_popular() -> None:
    assert _list("last_purchased", "ann") == [2, 3, 1, 9, 8]


def test_own_frequency_is_by_orders() -> None:
    assert _list("own_frequency", "ann") == [1, 3, 2, 9, 8]


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_a_cold_shopper_gets_what_is_popular(name: str) -> None:
    assert _list(name, "nobody") == [9, 8, 2]


@pytest.mark.parametrize("name", ["als", "bm25_items"])
def test_fitted_ones_name_what_was_bought_first_and_repeat_themselves(name: str) -> None:
    first = _list(name, "ann")
    assert first == _list(name, "ann")
    assert set(first[:3]) == {1, 2, 3}
    assert len(first) == len(set(first)) <= rivals.DEPTH


def test_ndcg_is_over_the_whole_basket() -> None:
    """One basket of items 1, 4 and 5; the list finds 1 in the second place, and nothing else."""
    ideal = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)
    none = np.empty(0, np.int64)
    index = pa.table({"group_id": ["g"], "shopper_id": ["ann"]})
    held = Holdout(
        "forward", index, index, Ranked(none, none, none, np.array([ideal]), np.array([3]))
    )  # fmt: skip
    baskets = pd.DataFrame({"group": ["g"] * 3, "item": [1, 4, 5], "label": [1, 1, 1]})
    lists = pd.DataFrame({"shopper": ["ann"] * 2, "item": [7, 1], "place": [1, 2]})
    found = quality._ndcg(held, baskets, lists)
    assert found == pytest.approx((1 / log2(3)) / ideal)
