"""What the stages are given: a shop with its lake and ledger, and the interval of one run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from pipelines.shared.declaration import Shop, load_shop
from pipelines.shared.intervals import Interval, require_past
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import LOCK_S, Ledger, Turn
from pipelines.shared.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True)
class Installation:
    """A shop with its lake and ledger, which are opened when they are first asked for."""

    settings: Settings
    shop: Shop

    @staticmethod
    def open(settings: Settings, shop: str) -> Installation:
        """Load a shop by its name.

        Raises:
            DeclarationError: the shop is unknown or wrongly declared.
        """
        return Installation(settings, load_shop(shop, settings.shops))

    @cached_property
    def lake(self) -> Lake:
        """The shop's lake."""
        return Lake(self.settings.lake, self.shop.shop)

    @cached_property
    def ledger(self) -> Ledger:
        """The shop's ledger.

        Raises:
            LedgerUnavailable: it does not answer.
        """
        return self.open_ledger()

    def open_ledger(self, lock_s: float = LOCK_S) -> Ledger:
        """The ledger again, for a thread of its own or with another patience with locks."""
        url = self.settings.ledger_url.get_secret_value()
        return Ledger(url, self.shop.shop, self.shop.surface.name, lock_s)

    def run(self, interval: Interval) -> Run:
        """The run of one interval."""
        return Run(self.settings, self.shop, interval)


@dataclass(frozen=True)
class Run(Installation):
    """One interval of one shop.

    `interval` may span several steps of the shop's grid: extraction, validation and features
    work step by step, training and the decision once for the whole.
    """

    interval: Interval
    turn: Turn | None = None
    """The turn that the run has; None where a stage is called alone."""

    @classmethod
    def of(cls, settings: Settings, shop: str, interval: Interval) -> Run:
        """Load the shop and check the interval.

        Raises:
            DeclarationError: the shop is unknown or wrongly declared.
            IntervalError: the interval is misaligned or has not ended.
        """
        declared = load_shop(shop, settings.shops)
        tuple(declared.grid.steps(interval))
        require_past(interval, datetime.now(UTC))
        return cls(settings, declared, interval)

    @cached_property
    def steps(self) -> tuple[Interval, ...]:
        """The grid's steps inside the interval, oldest first.

        Raises:
            IntervalError: the interval is misaligned.
        """
        return tuple(self.shop.grid.steps(self.interval))

    def require_turn(self, connection: sa.Connection | None = None) -> None:
        """Make sure that no other run is at work; see `Turns.require`.

        Raises:
            TurnLost, TurnTaken: another is.
        """
        self.ledger.turns.require(self.turn, connection)
