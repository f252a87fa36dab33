"""The champion's lists: the top candidates of every shopper."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.shared import columns as c
from pipelines.shared.errors import PermanentError
from pipelines.shared.ranking import numbered, ranks

RANK = "rank"
SCORE = "score"


class UnsoundScores(PermanentError):
    """A model gave scores by which nothing can be ranked."""


def top(candidates: pa.Table, scores: npt.NDArray[np.float64], k: int) -> pa.Table:
    """The k best candidates of every shopper.

    Args:
        candidates: n rows with `shopper_id` and `item_id`, in any order.
        scores: n scores; items that score the same are ordered by id.
        k: length of a list; a shopper with fewer candidates gets a shorter one.

    Returns:
        `shopper_id`, `rank` (from 1), `item_id`, `score`, sorted by shopper and rank.

    Raises:
        UnsoundScores: a score is not finite.
    """
    if broken := int((~np.isfinite(scores)).sum()):
        raise UnsoundScores(
            f"the champion gave {broken:,} of {len(scores):,} candidates a score that is no "
            "number; the published lists stay, look at the version in MLflow"
        )
    shopper = numbered(candidates[c.SHOPPER])
    rank = ranks(shopper, numbered(candidates[c.ITEM]), scores)
    kept = np.flatnonzero(rank <= k)
    kept = kept[np.lexsort((rank[kept], shopper[kept]))]
    chosen = candidates.select([c.SHOPPER, c.ITEM]).take(kept)
    columns: dict[str, Any] = {
        c.SHOPPER: chosen[c.SHOPPER],
        RANK: pa.array(rank[kept].astype(np.int32)),
        c.ITEM: chosen[c.ITEM],
        SCORE: pa.array(scores[kept].astype(np.float64)),
    }
    return pa.table(columns)
