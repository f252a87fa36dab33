"""Moments: times as features count them, and what they look back from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pipelines.shared.intervals import Interval

DAY: Final = 86_400_000_000
"""Microseconds of a day."""


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


@dataclass(frozen=True)
class AsOf:
    """A time that features look back from, and what was folded by then (law 3)."""

    time: datetime
    folded: Interval | None
    """The last step folded before `time`, whose snapshots stand; None where there is none."""

    @property
    def micros(self) -> int:
        """`time` in microseconds since 1970."""
        return micros(self.time)

    def ago(self, days: int) -> datetime:
        """So many days before `time`."""
        return self.time - timedelta(days=days)
