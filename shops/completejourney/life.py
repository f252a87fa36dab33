"""What happens in the shop, how often, and how long it takes: every rate in one place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

OPENING = datetime(2017, 1, 1, tzinfo=UTC)
"""When the simulated clock starts; what exists then is there before any change."""

Days = tuple[float, float]
"""Shortest and longest delay in days, the longest left out."""


@dataclass(frozen=True)
class Life:
    """Rates are shares of the rows concerned; each row is drawn by its key alone.

    `history.sql` reads every field by its name.
    """

    tick_hours: int = 3
    """Tills upload this often; what fell between two uploads is committed with the second."""

    late_order_rate: float = 0.01
    late_order_days: Days = (1, 12)
    late_line_rate: float = 0.002
    late_line_days: Days = (1, 5)
    cancelled_rate: float = 0.006
    cancelled_days: Days = (1, 6)

    duplicate_rate: float = 0.003
    """Lines delivered a second time, identical."""
    duplicate_later_rate: float = 0.5
    """Of the duplicates: those that come with a later upload, not with the same."""
    duplicate_days: Days = (0.125, 2)

    corrected_rate: float = 0.004
    """Lines typed in with one piece too many and corrected later."""
    corrected_days: Days = (0.5, 3)
    corrected_most_pieces: int = 20

    broken_order_rate: float = 0.001
    broken_line_rate: float = 0.001
    broken_promotion_rate: float = 0.001
    broken_price_rate: float = 0.0005
    broken_price_days: float = 2
    """A broken price is noticed and put right after so many days."""

    promotion_least_share: float = 0.2
    """A product's week is a promotion if so many stores display it or print it in the mailer."""
    promotion_announced_days: Days = (3, 7)
    promotion_withdrawn_rate: float = 0.01
    promotion_changed_rate: float = 0.02
    promotion_changed_days: Days = (-2, 3)
    """Counted from the promotion's start; negative is before it."""
    coupon_announced_days: float = 7
