"""Recommenders that need no features: what a ranker has to beat.

Each is given what was known at a time and some shoppers, and names ten items for each. A shopper
with less than ten gets what is popular behind them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

DEPTH: Final = 10
POPULAR_DAYS: Final = 28
HALF_LIFE_DAYS: Final = 42

Lists = pd.DataFrame
"""shopper, item, place (from 1); up to `DEPTH` rows a shopper."""


@dataclass(frozen=True)
class Orders:
    """What was known at a time."""

    lines: pd.DataFrame
    """shopper, item, order, age (days before the time); a row an item of an order."""

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """shopper, item, orders, age of the last one, orders decayed by half in 42 days."""
        decayed = self.lines.assign(decayed=0.5 ** (self.lines["age"] / HALF_LIFE_DAYS))
        return (
            decayed.groupby(["shopper", "item"])
            .agg(orders=("age", "size"), age=("age", "min"), decayed=("decayed", "sum"))
            .reset_index()
        )

    @cached_property
    def popular(self) -> pd.Series:
        """Item → orders in the last 28 days, the most first, ties by item."""
        lately = self.lines[self.lines["age"] <= POPULAR_DAYS]
        counts = lately.groupby("item").size().rename("orders").reset_index()
        ordered = counts.sort_values(["orders", "item"], ascending=[False, True])
        return ordered.set_index("item")["orders"]

    def matrix(self, strength: str) -> tuple[Any, pd.Index, pd.Index]:
        """shopper × item as a sparse matrix of a column of `pairs`, and the ids of both sides."""
        from scipy.sparse import csr_matrix

        shoppers = pd.Index(self.pairs["shopper"].unique()).sort_values()
        items = pd.Index(self.pairs["item"].unique()).sort_values()
        at = shoppers.get_indexer(self.pairs["shopper"]), items.get_indexer(self.pairs["item"])
        values = self.pairs[strength].to_numpy(np.float32)
        return csr_matrix((values, at), shape=(len(shoppers), len(items))), shoppers, items


def most_popular(orders: Orders, shoppers: npt.NDArray[Any]) -> Lists:
    """What was ordered most in the last 28 days, the same for everyone."""
    return _filled(orders, shoppers, pd.DataFrame({"shopper": [], "item": []}))


def last_purchased(orders: Orders, shoppers: npt.NDArray[Any]) -> Lists:
    """The shopper's items, the last bought first; more often bought first among those."""
    return _own(orders, shoppers, ["age", "orders"], [True, False])


def own_frequency(orders: Orders, shoppers: npt.NDArray[Any]) -> Lists:
    """The shopper's items by number of orders; the last bought first among equals."""
    return _own(orders, shoppers, ["orders", "age"], [False, True])


def als(orders: Orders, shoppers: npt.NDArray[Any]) -> Lists:
    """Implicit ALS on decayed counts (Hu, Koren and Volinsky 2008), items bought before included.

    64 factors and α = 10 found more of the next baskets than 32 or 16, and than α of 5, 20 or 40.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    def model() -> Any:
        return AlternatingLeastSquares(
            factors=64, alpha=10.0, regularization=10.0, iterations=15, random_state=1
        )

    return _fitted(model, orders, shoppers, "decayed")


def bm25_items(orders: Orders, shoppers: npt.NDArray[Any]) -> Lists:
    """Item-item neighbours by BM25-weighted counts, items bought before included.

    B = 0.2 ranks twice as well here as the library's 0.75, which holds long histories against
    their items; more or fewer neighbours than 20 change little.
    """
    from implicit.nearest_neighbours import BM25Recommender

    return _fitted(lambda: BM25Recommender(K=20, K1=1.2, B=0.2), orders, shoppers, "orders")


RIVALS: Final[dict[str, Callable[[Orders, npt.NDArray[Any]], Lists]]] = {
    each.__name__: each for each in (most_popular, last_purchased, own_frequency, als, bm25_items)
}


def _own(orders: Orders, shoppers: npt.NDArray[Any], by: list[str], ascending: list[bool]) -> Lists:
    mine = orders.pairs[orders.pairs["shopper"].isin(shoppers)]
    mine = mine.sort_values(["shopper", *by, "item"], ascending=[True, *ascending, True])
    return _filled(orders, shoppers, mine.groupby("shopper").head(DEPTH)[["shopper", "item"]])


def _fitted(
    make: Callable[[], Any], orders: Orders, shoppers: npt.NDArray[Any], strength: str
) -> Lists:
    from threadpoolctl import threadpool_limits

    matrix, everyone, items = orders.matrix(strength)
    known = everyone.get_indexer(pd.Index(shoppers))
    known = known[known >= 0]
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library converts a matrix of its own, and says so
        model = make()
        model.fit(matrix, show_progress=False)
        found, _ = model.recommend(known, matrix[known], N=DEPTH, filter_already_liked_items=False)
    places, whom = found.ravel(), np.repeat(everyone[known], found.shape[1])
    real = places >= 0
    best = pd.DataFrame({"shopper": whom[real], "item": items[places[real]]})
    return _filled(orders, shoppers, best)


def _filled(orders: Orders, shoppers: npt.NDArray[Any], best: pd.DataFrame) -> Lists:
    """The best items of each shopper, best first, with popular ones behind, cut to ten."""
    popular = pd.DataFrame({"item": orders.popular.index[: 2 * DEPTH]})
    behind = pd.DataFrame({"shopper": np.unique(shoppers)}).merge(popular, how="cross")
    whole = pd.concat([best, behind], ignore_index=True).drop_duplicates(["shopper", "item"])
    cut = whole.groupby("shopper").head(DEPTH)
    return cut.assign(place=cut.groupby("shopper").cumcount() + 1)
