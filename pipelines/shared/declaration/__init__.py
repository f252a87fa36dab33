"""A shop's declaration: `shops/<name>/shop.yaml`, parsed strictly and frozen.

Everything that Freshrank knows about a shop's tables and columns stands here.
"""

from pipelines.shared.declaration.file import load_shop
from pipelines.shared.declaration.loop import Every, Gate, Learning, Retention
from pipelines.shared.declaration.ranking import (
    CandidateSource,
    Event,
    Family,
    Features,
    Impressions,
    Item,
    Periods,
    Shopper,
    Surface,
)
from pipelines.shared.declaration.shop import Shop
from pipelines.shared.declaration.tables import Cursor, Source, Table

__all__ = [
    "CandidateSource",
    "Cursor",
    "Event",
    "Every",
    "Family",
    "Features",
    "Gate",
    "Impressions",
    "Item",
    "Learning",
    "Periods",
    "Retention",
    "Shop",
    "Shopper",
    "Source",
    "Surface",
    "Table",
    "load_shop",
]
