"""A bounded sample of the past, learned again so that it is not forgotten.

Nothing is stored twice: which groups are in it follows from the group index, a hash of each
group's id and its age, so that a rerun draws the same ones from the same partitions.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.shared import columns as c
from pipelines.shared import hashing
from pipelines.shared.intervals import utc
from pipelines.train.data.groups import Selection


def sample(
    past: Selection, size: int, until: datetime, half_life: timedelta, seed: int
) -> Selection:
    """Draw groups of the past, without replacement, each with a chance that decays with its age.

    The `size` largest u^(1/w), where u is the hash of the id in [0, 1) and w the weight: Efraimidis
    and Spirakis, "Weighted random sampling with a reservoir" (2006). Growing older changes w of all
    groups by one factor, so it is mostly the same groups that stay from one interval to the next.
    At most `size`, sorted as `groups.select` sorts them; ages count back from `until`.
    """
    if past.groups <= size:
        return past
    draws = np.maximum(hashing.draw(f"replay/{seed}", past.index[c.GROUP]), np.finfo(float).tiny)
    keys = np.log(draws) / decay(past.index[c.INTERVAL], until, half_life)
    chosen = np.zeros(past.groups, np.bool_)
    # Ties are as good as impossible, and settled by the order of the index.
    chosen[np.argsort(-keys, kind="stable")[:size]] = True
    return Selection(past.index.filter(pa.array(chosen)), past.without_relevant)


def decay(
    intervals: pa.ChunkedArray[Any], until: datetime, half_life: timedelta
) -> npt.NDArray[np.float64]:
    """The weight of groups by the age of their partitions: 0.5^(age / half-life)."""
    keys = intervals.combine_chunks().dictionary_encode()
    ages = [
        max(until - utc(str(key)), timedelta(0)) / half_life for key in keys.dictionary.to_pylist()
    ]
    weights = np.power(0.5, np.array(ages, dtype=np.float64))
    of_group: npt.NDArray[np.float64] = weights[keys.indices.to_numpy()]
    return of_group
