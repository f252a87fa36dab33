"""One shop's declaration, lake and ledger, without an interval."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.shared.declaration import Shop, load_shop
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import Ledger
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings


@dataclass(frozen=True)
class Installation:
    """What works on a whole shop rather than on an interval is given."""

    settings: Settings
    shop: Shop
    lake: Lake
    ledger: Ledger

    @classmethod
    def of(cls, settings: Settings, shop: str) -> Installation:
        """Open a shop's lake and ledger.

        Raises:
            DeclarationError: the shop is unknown or wrongly declared.
            LedgerUnavailable: the ledger does not answer.
        """
        declared = load_shop(shop, settings.shops)
        url = settings.ledger_url.get_secret_value()
        return cls(
            settings,
            declared,
            Lake(settings.lake, declared.shop),
            Ledger(url, declared.shop, declared.surface.name),
        )

    def run(self, interval: Interval) -> Run:
        """The run of one interval, for a stage."""
        return Run(self.settings, self.shop, interval)
