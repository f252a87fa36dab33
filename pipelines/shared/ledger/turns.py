"""Turns: of all runs that want to work on a shop's surface, one at a time, the oldest first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import sqlalchemy as sa

from pipelines.shared.errors import IntervalOverlaps, TurnLost, TurnTaken
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.ledger.records import Decision
from pipelines.shared.ledger.tables import TURNS

ALIVE_FOR: Final = timedelta(minutes=5)
"""After its last heartbeat. A holder beats twice a minute, so ten were missed: it is dead, stopped
or cut off. Between two tasks of an Airflow run, which nobody beats, far less time passes unless
the pool is busy; then its own scheduler vouches for it (`Vouch`)."""
_MYSQL_CLOCK: Final = "SELECT timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)) / 1000000"
_CLOCKS: Final = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "mysql": _MYSQL_CLOCK,
    "mariadb": _MYSQL_CLOCK,
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
}
_log = logging.getLogger(__name__)

Vouch = Callable[[str], bool | None]
"""Holder → whether it still works; None where only its heartbeat can tell."""


def by_heartbeat(holder: str) -> bool | None:
    """Vouch for nobody."""
    del holder
    return None


@dataclass(frozen=True)
class Turn:
    """One row of `freshrank_turns` that has not ended: a turn, or a place in the queue for one."""

    id: int
    holder: str
    """Who: `Airflow run <graph>/<run>`, or a host, a process and its own number."""
    interval: Interval
    asked_at: datetime
    taken_at: datetime | None
    """None while it waits."""
    asked_s: float
    """Seconds since it asked, by the database's clock, when it was read."""
    silent_s: float
    """Seconds since its last heartbeat, likewise."""

    @property
    def alive(self) -> bool:
        """Whether its last heartbeat is recent."""
        return self.silent_s < ALIVE_FOR.total_seconds()

    def __str__(self) -> str:
        since = f"{self.taken_at or self.asked_at:%Y-%m-%d %H:%M:%S} UTC"
        did = "has the turn" if self.taken_at else "waits for its turn"
        return (
            f"{self.holder} {did} for {self.interval} since {since} "
            f"(last sign of life {self.silent_s:.0f} s ago)"
        )

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return {
            "holder": self.holder,
            "start": self.interval.start.isoformat(),
            "end": self.interval.end.isoformat(),
            "taken_at": self.taken_at.isoformat() if self.taken_at else None,
            "silent_s": round(self.silent_s, 1),
            "alive": self.alive,
        }


class Store(Protocol):
    """What turns need of the ledger."""

    @property
    def dialect(self) -> str:
        """See `Ledger.dialect`."""

    def transaction(
        self, within: sa.Connection | None = None
    ) -> AbstractContextManager[sa.Connection]:
        """See `Ledger.transaction`."""

    def decision_lock(self) -> AbstractContextManager[sa.Connection]:
        """See `Ledger.decision_lock`."""

    def decisions(self, connection: sa.Connection | None = None) -> list[Decision]:
        """See `Ledger.decisions`."""


class Turns:
    """The turns of one shop's surface. Times are the database's, whose clock all holders share."""

    def __init__(self, ledger: Store, shop: str, surface: str) -> None:
        self._ledger, self._shop, self._surface = ledger, shop, surface

    def standing(self, connection: sa.Connection | None = None) -> Turn | None:
        """The turn that somebody has now, dead or alive."""
        return next((each for each in self._open(connection) if each.taken_at), None)

    def ask(self, interval: Interval, holder: str, vouch: Vouch = by_heartbeat) -> Turn:
        """Get a place in the queue, or give a sign of life in it or in the turn.

        Raises:
            IntervalOverlaps: the interval overlaps one that is decided or running.
        """
        for own in self._open():
            if _is(own, holder, interval) and self.beat(own):
                return own
        with self._ledger.decision_lock() as connection:
            outcome = self._enter(interval, holder, vouch, connection)
        if isinstance(outcome, IntervalOverlaps):
            raise outcome
        return outcome

    def take(self, interval: Interval, holder: str, vouch: Vouch = by_heartbeat) -> Turn:
        """Take the turn for an interval, or give a sign of life in the one that the holder has.

        A holder that has to wait keeps its place in the queue as long as it asks again: of those
        who wait, the oldest interval comes first. A dead holder's turn is taken over.

        Args:
            vouch: whether a holder still works, whatever its heartbeat says.

        Raises:
            TurnTaken: somebody else has it, or comes first; names who.
            IntervalOverlaps: the interval overlaps one that is decided or running.
        """
        waiting = self._wait(interval, holder, vouch)
        if waiting is not None:
            raise self._taken(waiting, interval)
        with self._ledger.decision_lock() as connection:
            outcome = self._enter(interval, holder, vouch, connection)
            if not isinstance(outcome, IntervalOverlaps):
                outcome = self._next(outcome, vouch, connection)
        if isinstance(outcome, IntervalOverlaps):
            raise outcome
        if outcome.holder != holder:
            raise self._taken(outcome, interval)
        return outcome

    def beat(self, turn: Turn, connection: sa.Connection | None = None) -> bool:
        """Give a sign of life; whether the turn, or the place in the queue, is still there."""
        with self._ledger.transaction(connection) as writer:
            own = TURNS.update().where(TURNS.c.id == turn.id, TURNS.c.ended_at.is_(None))
            beaten = writer.execute(own.values(heartbeat_at=_text(self._now(writer))))
            return bool(beaten.rowcount)

    def release(self, holder: str) -> None:
        """End the holder's turn, and its place in the queue; of one that ended nothing happens."""
        with self._ledger.transaction() as connection:
            for each in self._open(connection):
                if each.holder == holder:
                    self._end(each, holder, connection)

    def idle_s(self) -> float:
        """Seconds since the last turn ended; infinite where there was none."""
        ended = sa.select(sa.func.max(TURNS.c.ended_at)).where(
            TURNS.c.shop == self._shop,
            TURNS.c.surface == self._surface,
            TURNS.c.taken_at.is_not(None),
        )
        with self._ledger.transaction() as reader:
            last = reader.scalar(ended)
            return (self._now(reader) - utc(last)).total_seconds() if last else float("inf")

    def require(self, turn: Turn | None, connection: sa.Connection | None = None) -> None:
        """Make sure that a run may write: it has the turn, or, asked without one, nobody has it.

        Args:
            connection: under `decision_lock`, where nobody takes the turn until the block ends.

        Raises:
            TurnLost: somebody took it over.
            TurnTaken: there is none to show, and somebody is at work.
        """
        standing = self.standing(connection)
        if turn is not None and (standing is None or standing.id != turn.id):
            raise TurnLost(
                f"{self._name}: the turn of {turn.holder} for {turn.interval} is over: another run "
                "took it after there was no sign of life for "
                f"{ALIVE_FOR.total_seconds():.0f} s. Nothing more was written; run the interval "
                "again: what is done by now stays as it is"
            )
        if turn is None and standing is not None and standing.alive:
            raise TurnTaken(f"{self._name}: {standing}; run again when it is done")

    def require_apart(self, interval: Interval, connection: sa.Connection | None = None) -> None:
        """Make sure that an interval is a decided one, or overlaps none.

        Raises:
            IntervalOverlaps: it overlaps one.
        """
        if overlaps := self._overlaps(interval, connection):
            raise overlaps

    def _wait(self, interval: Interval, holder: str, vouch: Vouch) -> Turn | None:
        """Who is in the way of a holder that waits already; without the lock, which may be busy."""
        rows = self._open()
        own = next((each for each in rows if _is(each, holder, interval)), None)
        if own is None or own.taken_at:
            return None
        blocker = _blocker(rows, own, vouch)
        if blocker is None or _clash(blocker, interval) or not self.beat(own):
            return None
        return blocker

    def _enter(
        self, interval: Interval, holder: str, vouch: Vouch, connection: sa.Connection
    ) -> Turn | IntervalOverlaps:
        """The holder's turn or place in the queue, once the dead are gone; or why it has none."""
        rows = []
        for each in self._open(connection):
            mine = each.holder == holder
            if each.interval == interval if mine else _works(each, vouch):
                rows.append(each)
            else:
                self._end(each, holder, connection)
        own = next((each for each in rows if each.holder == holder), None)
        standing = next((each for each in rows if each.taken_at), None)
        overlaps = self._overlaps(interval, connection)
        if overlaps is None and standing is not None and _clash(standing, interval):
            why = f"of {standing.holder}, which runs"
            overlaps = self._refusal(interval, why, standing.interval)
        if overlaps is not None:
            if own is not None:
                self._end(own, holder, connection)
            return overlaps
        if own is None:
            return self._insert(interval, holder, connection)
        self.beat(own, connection)
        return own

    def _next(self, own: Turn, vouch: Vouch, connection: sa.Connection) -> Turn:
        """The turn, which the holder now has; or who has it, or comes first."""
        blocker = _blocker(self._open(connection), own, vouch)
        if blocker is not None or own.taken_at:
            return blocker or own
        now = self._now(connection)
        taken = TURNS.update().where(TURNS.c.id == own.id)
        connection.execute(taken.values(taken_at=_text(now)))
        return replace(own, taken_at=now)

    def _overlaps(
        self, interval: Interval, connection: sa.Connection | None
    ) -> IntervalOverlaps | None:
        for each in self._ledger.decisions(connection):
            if each.interval != interval and each.interval.overlaps(interval):
                return self._refusal(interval, "which is decided", each.interval)
        return None

    def _refusal(self, interval: Interval, why: str, other: Interval) -> IntervalOverlaps:
        return IntervalOverlaps(
            f"{self._name}: {interval} overlaps {other}, {why}, and is not the same; its groups "
            f"would count twice. Run exactly {other}, or an interval that ends by "
            f"{other.start:%Y-%m-%d} or starts from {other.end:%Y-%m-%d}"
        )

    def _taken(self, other: Turn, interval: Interval) -> TurnTaken:
        return TurnTaken(
            f"{self._name}: {interval} waits, since {other}. It is released when that run ends, or "
            f"{ALIVE_FOR.total_seconds():.0f} s after its last sign of life: run again then, or "
            "end that run"
        )

    @property
    def _name(self) -> str:
        return f"{self._shop}/{self._surface}"

    def _open(self, connection: sa.Connection | None = None) -> list[Turn]:
        """What has not ended, in the order of asking."""
        query = sa.select(TURNS).where(
            TURNS.c.shop == self._shop, TURNS.c.surface == self._surface, TURNS.c.ended_at.is_(None)
        )
        with self._ledger.transaction(connection) as reader:
            rows = reader.execute(query.order_by(TURNS.c.id)).mappings().all()
            now = self._now(reader) if rows else None
        return [
            Turn(
                row["id"],
                row["holder"],
                Interval.of(row["interval_start"], row["interval_end"]),
                utc(row["asked_at"]),
                utc(row["taken_at"]) if row["taken_at"] else None,
                (now - utc(row["asked_at"])).total_seconds(),
                (now - utc(row["heartbeat_at"])).total_seconds(),
            )
            for row in rows
            if now is not None
        ]

    def _insert(self, interval: Interval, holder: str, connection: sa.Connection) -> Turn:
        now = self._now(connection)
        asked = connection.execute(
            TURNS.insert().values(
                shop=self._shop, surface=self._surface, holder=holder,
                interval_start=f"{interval.start:%Y-%m-%dT%H:%M:%SZ}",
                interval_end=f"{interval.end:%Y-%m-%dT%H:%M:%SZ}",
                asked_at=_text(now), heartbeat_at=_text(now),
            )
        )  # fmt: skip
        (number,) = asked.inserted_primary_key or (0,)
        return Turn(number, holder, interval, now, None, 0.0, 0.0)

    def _end(self, turn: Turn, by: str, connection: sa.Connection) -> None:
        if turn.holder != by and turn.taken_at:
            _log.warning("%s: %s took over: %s", self._name, by, turn)
        ended = TURNS.update().where(TURNS.c.id == turn.id, TURNS.c.ended_at.is_(None))
        connection.execute(ended.values(ended_at=_text(self._now(connection)), ended_by=by))

    def _now(self, connection: sa.Connection) -> datetime:
        seconds = connection.scalar(sa.text(_CLOCKS[self._ledger.dialect]))
        return datetime.fromtimestamp(float(seconds), UTC)


def _works(turn: Turn, vouch: Vouch) -> bool:
    """Whether a holder is at work: by who vouches for it, else by its heartbeat."""
    vouched = vouch(turn.holder)
    return turn.alive if vouched is None else vouched


def _blocker(rows: Iterable[Turn], own: Turn, vouch: Vouch) -> Turn | None:
    """Who has the turn, or comes first in the queue; None where it is the holder's own."""
    if own.taken_at:
        return None
    for each in rows:
        if each.id == own.id:
            continue
        comes_first = each.taken_at or (each.interval, each.id) < (own.interval, own.id)
        if comes_first and _works(each, vouch):
            return each
    return None


def _is(turn: Turn, holder: str, interval: Interval) -> bool:
    return turn.holder == holder and turn.interval == interval


def _clash(turn: Turn, interval: Interval) -> bool:
    return bool(turn.taken_at) and turn.interval != interval and turn.interval.overlaps(interval)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
