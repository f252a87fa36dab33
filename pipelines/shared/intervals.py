"""Half-open time intervals in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pipelines.shared.errors import IntervalError

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def utc(value: datetime | date | str) -> datetime:
    """Read a time as UTC. A date is its midnight; a time without a zone is taken as UTC.

    Raises:
        IntervalError: `value` is a text that is no ISO 8601 date or time.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise IntervalError(
                f"{value!r} is not a time; write it as 2017-01-02 or 2017-01-02T00:00:00Z"
            ) from error
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001
    at = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    # Subclasses with an arithmetic of their own (Airflow's pendulum) become plain datetimes.
    return datetime.combine(date(at.year, at.month, at.day), at.timetz())


@dataclass(frozen=True, order=True)
class Interval:
    """`[start, end)`, both in UTC.

    Raises:
        IntervalError: the end is not after the start.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise IntervalError(
                f"the interval's end {self.end:{_FORMAT}} is not after its start "
                f"{self.start:{_FORMAT}}; give --start before --end"
            )

    @classmethod
    def of(cls, start: datetime | date | str, end: datetime | date | str) -> Interval:
        """Build an interval from dates, times or ISO texts."""
        return cls(utc(start), utc(end))

    def overlaps(self, other: Interval) -> bool:
        """Whether some moment lies in both."""
        return self.start < other.end and other.start < self.end

    @property
    def key(self) -> str:
        """The interval's address in the lake, e.g. `2017-01-02T00:00:00Z`."""
        return self.start.strftime(_FORMAT)

    def __str__(self) -> str:
        return f"[{self.start:{_FORMAT}}, {self.end:{_FORMAT}})"


@dataclass(frozen=True)
class Grid:
    """The declared interval grid: every `step` from `anchor` on."""

    anchor: datetime
    step: timedelta

    def step_of(self, moment: datetime) -> Interval:
        """The step that a time lies in."""
        start = moment - (moment - self.anchor) % self.step
        return Interval(start, start + self.step)

    def steps(self, interval: Interval) -> Iterator[Interval]:
        """Cut an aligned interval into the grid's steps, oldest first.

        Raises:
            IntervalError: an edge of `interval` does not lie on the grid.
        """
        for name, edge in (("start", interval.start), ("end", interval.end)):
            beyond = (edge - self.anchor) % self.step
            if beyond:
                below = edge - beyond
                raise IntervalError(
                    f"the interval's {name} {edge:{_FORMAT}} is not aligned with the shop's "
                    f"intervals (every {self.step.days} d from {self.anchor:{_FORMAT}}); "
                    f"the nearest are {below:{_FORMAT}} and {below + self.step:{_FORMAT}}"
                )
        start = interval.start
        while start < interval.end:
            yield Interval(start, start + self.step)
            start += self.step


def require_past(interval: Interval, now: datetime) -> None:
    """Refuse an interval that has not ended at `now`.

    Raises:
        IntervalError: the interval ends after `now`.
    """
    if interval.end > now:
        raise IntervalError(
            f"the interval {interval} ends in the future (now {now:{_FORMAT}}); "
            "its changes are not complete, choose one that has ended"
        )
