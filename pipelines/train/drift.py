"""How well the champion ranks groups that it has not learned yet, and whether that is unusual.

The new groups are scored before anything learns from them: the prequential error of Gama,
Sebastião and Rodrigues, "On evaluating stream learning algorithms" (2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.shared import ranking
from pipelines.train.data.examples import Examples

PAST_RUNS: Final = 8
"""The past is the last so many runs."""
MIN_RUNS: Final = 3
"""Fewer runs tell nothing about what is usual."""
RECOVERY: Final = 4
"""Runs after an alarm in which new groups are learned faster than usual."""
_NORMAL: Final = 1.4826
"""Standard deviations in a median absolute deviation, where errors are normal."""


@dataclass(frozen=True)
class Health:
    """A model's NDCG@10 on new groups, with the negatives thinned: lower numbers than these mean
    something only beside others of their kind."""

    ndcg_at_10: float
    error: float
    """Standard error of the mean."""
    groups: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON, rounded so that it reads."""
        return {
            "ndcg_at_10": round(self.ndcg_at_10, 6),
            "error": round(self.error, 6),
            "groups": self.groups,
        }


def ndcg(examples: Examples, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """g values of NDCG@10 among the candidates at hand; ties keep the order of the rows."""
    group = np.repeat(np.arange(examples.groups), examples.sizes)
    rows = np.arange(examples.rows)
    label = examples.labels.astype(np.float64)
    best = ranking.ranks(group, rows, label)
    ideal = ranking.dcg(group, best, label, examples.groups)
    return ranking.ndcg(group, ranking.ranks(group, rows, scores), label, ideal)


def measure(examples: Examples, scores: npt.NDArray[np.float64]) -> Health:
    """A model's health on new groups, at least two, each with two grades."""
    values = ndcg(examples, scores)
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    return Health(float(values.mean()), error, len(values))


def behind(now: Health, past: Sequence[Health]) -> float | None:
    """By how many standard errors the model fell behind what it used to reach.

    The past is what champions reached in the last runs, each on what was new to it then: their
    median, so that the first bad runs after a change do not pass for what is usual. Its own spread,
    from holidays and the like, counts as error too, by the median absolute deviation (Rousseeuw and
    Croux, 1993). Positive where it fell; None while the past is too short to tell.
    """
    if len(past) < MIN_RUNS:
        return None
    values = np.array([each.ndcg_at_10 for each in past[-PAST_RUNS:]])
    usual = float(np.median(values))
    deviation = _NORMAL * float(np.median(np.abs(values - usual)))
    return (usual - now.ndcg_at_10) / max(math.hypot(now.error, deviation), 1e-9)


def runs_since_alarm(healths: Sequence[Health], alarm: float, reach: int) -> int | None:
    """How many runs ago a champion last fell behind by more than `alarm` errors.

    0 where the newest, the last of `healths`, did; None where none of `reach` runs before it did.
    """
    for age in range(min(reach + 1, len(healths))):
        place = len(healths) - 1 - age
        fell = behind(healths[place], healths[:place])
        if fell is not None and fell > alarm:
            return age
    return None
