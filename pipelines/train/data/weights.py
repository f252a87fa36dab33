"""Weights of logged rows: whoever looks at a list sees its head more often than its end."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.train.data.examples import Floats, Ints

CLIP: Final = 10.0
"""No row weighs more than this before its group is normalised: a bound on the variance."""


def exposure(
    positions: npt.NDArray[np.floating[Any]], labels: Floats, sizes: Ints, power: float
) -> Floats:
    """n inverse-propensity weights of logged lists, for the relevant rows.

    A candidate at place p is looked at in proportion to p^-power, so one that was chosen there
    stands for p^power that would have been: Joachims, Swaminathan and Schnabel, "Unbiased
    learning-to-rank with biased feedback" (WSDM 2017). What was not chosen weighs 1: whether it
    was seen is unknown. Weights are clipped, then divided by their mean over the group, so that
    every group weighs as much as before.

    Args:
        positions: n places as the shop logged them, from any first number; NaN where unknown.
        labels: n grades.
        sizes: g group sizes; the rows of a group lie together.
        power: 0 makes every weight 1.
    """
    if len(labels) == 0:
        return np.empty(0, np.float32)
    starts = np.cumsum(sizes) - sizes
    known = np.isfinite(positions)
    first = np.minimum.reduceat(np.where(known, positions, np.inf), starts)
    place = np.where(known, positions - np.repeat(first, sizes) + 1, 1.0)
    weight = np.where(labels > 0, np.minimum(place**power, CLIP), 1.0)
    mean = np.add.reduceat(weight, starts) / sizes
    return (weight / np.repeat(mean, sizes)).astype(np.float32)
