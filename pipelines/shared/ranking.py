"""Ranks of candidates inside their groups and NDCG of the ranking, for all groups at once."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
DEPTH: Final = 10
"""How many places of a ranking count."""


def ranks(group: Integers, item: Integers, scores: Floats) -> Integers:
    """The rank of each candidate inside its group, from 1; the highest score comes first.

    Args:
        group: n numbers of groups.
        item: n numbers whose order breaks ties.
        scores: n scores.
    """
    order = np.lexsort((item, -scores, group))
    sorted_group = group[order]
    starts = np.flatnonzero(np.diff(sorted_group, prepend=sorted_group[:1] - 1))
    sizes = np.diff(starts, append=len(group))
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(starts, sizes) + 1
    return rank


def dcg(group: Integers, rank: Integers, label: Floats | Integers, groups: int) -> Floats:
    """DCG@10 of each group: gain `2**label - 1`, discount `log2(rank + 1)`.

    Burges et al., "Learning to rank using gradient descent", ICML 2005.

    Args:
        group: n numbers of groups in `[0, groups)`.
        rank: n ranks inside the groups, from 1.
        label: n grades; 0 is irrelevant.
        groups: g, how many groups there are.

    Returns:
        g values; 0 for a group without candidates.
    """
    gain = np.where(rank <= DEPTH, np.exp2(label, dtype=np.float64) - 1, 0.0) / np.log2(rank + 1)
    return np.bincount(group, weights=gain, minlength=groups).astype(np.float64)


def ndcg(group: Integers, rank: Integers, label: Floats | Integers, ideal: Floats) -> Floats:
    """NDCG@10 of each group: its `dcg`, divided by what the best ranking reaches.

    Args:
        group, rank, label: see `dcg`.
        ideal: g values of DCG@10 of the best ranking.

    Returns:
        g values; not finite where the ideal is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return dcg(group, rank, label, len(ideal)) / ideal


def numbered(column: pa.ChunkedArray[Any]) -> Integers:
    """Number the distinct values of a column in their own order, so that ties can be broken.

    Args:
        column: n values without nulls.

    Returns:
        n numbers from 0; a larger value has a larger number.
    """
    coded = column.combine_chunks().dictionary_encode()
    # Of a chunked array, combining may still leave one chunk.
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
    values = coded.dictionary.to_numpy(zero_copy_only=False)
    place = np.empty(len(values), dtype=np.int64)
    place[np.argsort(values, kind="stable")] = np.arange(len(values))
    codes: Integers = coded.indices.to_numpy().astype(np.int64)
    return place[codes]
