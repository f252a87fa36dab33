"""Ranking metrics, a value per group first and means second, so that models can be paired.

Every function works on all groups at once. Candidates that score the same are ordered by item,
so a metric never depends on the order in which rows were read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.shared.ranking import DEPTH, Floats, Integers, ndcg, ranks


@dataclass(frozen=True)
class Ranked:
    """n candidates of g groups, ready to be ranked by any model.

    Raises:
        ValueError: the arrays differ in length, or a group number is out of range.
    """

    group: Integers
    """n positions of the candidates' groups, `0 … g-1`; a group may have no candidate."""
    item: Integers
    """n item numbers whose order breaks ties."""
    label: Integers
    """n grades; 0 is irrelevant."""
    ideal: Floats
    """g ideal DCG@10, over all that was relevant, also what the candidates missed."""
    relevant: Integers
    """g counts of relevant items, also those that the candidates missed."""

    def __post_init__(self) -> None:
        if not len(self.group) == len(self.item) == len(self.label):
            raise ValueError("group, item and label must be equally long")
        if len(self.ideal) != len(self.relevant):
            raise ValueError("ideal and relevant must be equally long")
        if len(self.group) and not 0 <= self.group.min() <= self.group.max() < len(self.ideal):
            raise ValueError(f"group numbers must lie in 0 … {len(self.ideal) - 1}")


@dataclass(frozen=True)
class GroupScores:
    """g values a metric; NaN where the model's scores, or the group's ideal, are not finite."""

    ndcg_at_10: Floats
    mrr: Floats
    recall_at_10: Floats
    distinct_items: int
    """How many different items are in the top 10 of all groups together."""

    def values(self) -> dict[str, Floats]:
        """Metric → g values."""
        return {
            "ndcg_at_10": self.ndcg_at_10,
            "mrr": self.mrr,
            "recall_at_10": self.recall_at_10,
        }


def per_group(ranked: Ranked, scores: Floats) -> GroupScores:
    """NDCG@10, reciprocal rank of the first relevant candidate, and recall@10 of every group.

    The ideal is over *all* relevant items: candidates that were never generated cost NDCG and
    recall too. n scores make g values a metric; a group without candidates has 0.
    """
    groups = len(ranked.ideal)
    rank = ranks(ranked.group, ranked.item, scores)
    top, hit = rank <= DEPTH, ranked.label > 0
    hits = np.bincount(ranked.group, weights=top & hit, minlength=groups)
    reciprocal = np.zeros(groups)
    np.maximum.at(reciprocal, ranked.group[hit], 1.0 / rank[hit])
    broken = np.zeros(groups, dtype=bool)
    broken[ranked.group[~np.isfinite(scores)]] = True
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = hits / ranked.relevant
    values = (ndcg(ranked.group, rank, ranked.label, ranked.ideal), reciprocal, recall)
    finite = [np.where(broken | ~np.isfinite(each), np.nan, each) for each in values]
    return GroupScores(finite[0], finite[1], finite[2], len(np.unique(ranked.item[top])))


def coverage(scores: GroupScores, catalogue: int) -> float:
    """Share of the known items that are in some group's top 10; NaN for an empty catalogue."""
    return scores.distinct_items / catalogue if catalogue > 0 else float("nan")


def mean(values: Floats) -> float:
    """The mean over groups; NaN where there are none, or where one is NaN."""
    return float(values.mean()) if len(values) else float("nan")
