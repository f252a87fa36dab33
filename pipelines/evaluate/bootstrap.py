"""The interval of a mean gain: a paired bootstrap over shoppers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 2000
_CELLS = 4_000_000


@dataclass(frozen=True)
class Gain:
    """A mean gain and its interval; NaN where it cannot be known."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


UNKNOWN = Gain(float("nan"), float("nan"), float("nan"))


def seed(*names: str) -> int:
    """A seed that depends on the names alone, so that a rerun draws the same resamples."""
    return int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big")


def paired_gain(
    gains: Floats,
    shoppers: npt.NDArray[np.int64],
    confidence: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> Gain:
    """The mean per-group gain with its two-sided percentile interval.

    Whole shoppers are drawn with replacement, since the groups of one shopper resemble each other:
    Field and Welsh, "Bootstrapping clustered data", JRSS B 69 (2007). Gains are paired per group:
    Sakai, "Evaluating evaluation metrics based on the bootstrap", SIGIR 2006. NaN throughout where
    a gain is not finite or fewer than two shoppers are there to draw.

    The g gains are the challenger's less the other's, each with the number of its group's shopper.
    """
    known, member = np.unique(shoppers, return_inverse=True)
    if len(known) < 2 or not np.isfinite(gains).all():
        return UNKNOWN
    totals = np.bincount(member, weights=gains)
    sizes = np.bincount(member)
    draws = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _CELLS // len(known))
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = draws.integers(0, len(known), size=(stop - start, len(known)))
        means[start:stop] = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Gain(float(gains.mean()), float(low), float(high))


def widened(confidence: float, challengers: int) -> float:
    """The level at which each of k intervals must be drawn for all to hold at `confidence`.

    Bonferroni's inequality: the best of k challengers on the same groups looks better than it
    is; with its interval this wide, the chance that any useless one passes stays as declared.
    """
    return 1 - (1 - confidence) / max(challengers, 1)
