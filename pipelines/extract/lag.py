"""How old changes are when they are durable: seconds from commit, by the shop's clock."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]


class CommitTimes:
    """Counts changes by the second of their commit: memory grows with the seconds, not the rows."""

    _AT_ONCE = 1 << 20

    def __init__(self) -> None:
        self._seconds: list[Ints] = []
        self._counts: list[Ints] = []

    def add(self, committed: Any) -> None:
        """Take further commit times (an Arrow array of timestamps in microseconds, UTC)."""
        seconds = committed.cast(pa.int64()).to_numpy(zero_copy_only=False) // 1_000_000
        counted: Any = pc.value_counts(pa.array(seconds))
        self._seconds.append(counted.field("values").to_numpy())
        self._counts.append(counted.field("counts").to_numpy())
        if sum(map(len, self._seconds[1:])) >= self._AT_ONCE:
            self._count()

    def _count(self) -> tuple[Ints, Ints]:
        nothing = np.empty(0, np.int64)
        seconds, places = np.unique(np.concatenate([nothing, *self._seconds]), return_inverse=True)
        weights = np.concatenate([nothing, *self._counts])
        counts = np.bincount(places, weights, minlength=len(seconds)).astype(np.int64)
        self._seconds, self._counts = [seconds], [counts]
        return seconds, counts

    def lag_s(self, durable: datetime) -> dict[str, int | None]:
        """The longest and the median lag when changes were durable, in whole seconds; None without.

        Of an even number of changes the median is the longer of the two in the middle.
        """
        seconds, counts = self._count()
        if not len(seconds):
            return {"max": None, "median": None}
        middle = np.searchsorted(np.cumsum(counts), (counts.sum() + 1) // 2)
        now = int(durable.timestamp())
        return {"max": now - int(seconds[0]), "median": now - int(seconds[middle])}
