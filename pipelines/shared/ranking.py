"""Ranking candidates inside their groups, for all groups at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


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
    found = np.empty(len(group), dtype=np.int64)
    found[order] = np.arange(len(group)) - np.repeat(starts, sizes) + 1
    return found


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
