"""Every feature in one place: name, family, grain, unit, meaning and expression.

An expression reads one wide row: a candidate of a group with the counters of its item, shopper,
pair, category and attributes (`counters.py`), its proposal (`candidates.py`) and the group's
time. Ratios, recencies and ranks rather than totals: totals grow with the shop, and a model that
leans on them ages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import ibis
import pyarrow as pa

from pipelines.features.candidates import SOURCES
from pipelines.features.counters import MILLION
from pipelines.features.engine import Table, Value
from pipelines.features.events import DAY
from pipelines.features.storage import Layout
from pipelines.shared.errors import DeclarationError

Family = Literal[
    "shopper × item", "shopper × attribute", "item", "price", "period", "shopper",
    "copurchase", "source", "context", "category code",
]  # fmt: skip


@dataclass(frozen=True)
class Feature:
    """One feature."""

    name: str
    family: Family
    grain: str
    unit: str
    meaning: str
    expression: Callable[[Table], Value]
    categorical: bool = False

    @property
    def type(self) -> pa.DataType:
        """int32 codes for categorical features, float32 otherwise; null where unknown."""
        return pa.int32() if self.categorical else pa.float32()


def catalogue(layout: Layout) -> tuple[Feature, ...]:
    """The features of a shop: a shop without prices, attributes or periods has fewer.

    Raises:
        DeclarationError: a declared attribute's name makes two features of one name.
    """
    priced = _PRICES if layout.shop.item.price else ()
    attributes = tuple(
        feature for name in layout.shop.item.attributes for feature in _affinities(name)
    )
    coded = ("item_category", *(f"item_{name}" for name in layout.shop.item.attributes))
    found = (
        *_PAIR, *_CATEGORY, *attributes, *_ITEM, *priced,
        *(_period(name) for name in layout.period_attributes),
        *_SHOPPER, *_TOGETHER, *_SOURCES, *_CONTEXT, *(_code(name) for name in coded),
    )  # fmt: skip
    names = [feature.name for feature in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DeclarationError(
            f"shop {layout.shop.shop}: a declared attribute makes a second feature named "
            f"{', '.join(twice)}; rename the attribute under item.attributes in shop.yaml"
        )
    return found


def types(features: tuple[Feature, ...]) -> dict[str, pa.DataType]:
    """Column name → Arrow type."""
    return {feature.name: feature.type for feature in features}


def ratio(part: Value, whole: Value) -> Value:
    """`part / whole`; null where the whole is nothing or unknown."""
    return part / whole.cast("float64").nullif(0.0)


def days_since(row: Table, moment: Value) -> Value:
    """Days from a moment to the group's time."""
    return (row.context_time - moment) / DAY


def _gap(first: Value, last: Value, orders: Value) -> Value:
    return ratio((last - first) / DAY, orders - 1)


def _cycle(row: Table, last: Value, gap: Value) -> Value:
    return ratio(days_since(row, last), gap).clip(upper=10.0)


_PAIR = (
    Feature(
        "pair_orders", "shopper × item", "shopper × item", "orders",
        "orders with the item in 182 days, weighed by the strength of the event",
        lambda row: row.si_weight_milli.fill_null(0) / 1000,
    ),
    Feature(
        "pair_orders_28d", "shopper × item", "shopper × item", "orders",
        "orders with the item in the last 28 days",
        lambda row: row.si_orders_28d.fill_null(0),
    ),
    Feature(
        "pair_orders_faded", "shopper × item", "shopper × item", "orders",
        "orders with the item; one of 42 days ago counts half",
        lambda row: row.si_faded_millionth.fill_null(0) / MILLION,
    ),
    Feature(
        "pair_share", "shopper × item", "shopper × item", "share",
        "share of the shopper's orders that hold the item",
        lambda row: ratio(row.si_orders.fill_null(0), row.sh_orders),
    ),
    Feature(
        "pair_days_since", "shopper × item", "shopper × item", "days",
        "days since the shopper last bought the item",
        lambda row: days_since(row, row.si_last),
    ),
    Feature(
        "pair_gap_days", "shopper × item", "shopper × item", "days",
        "the shopper's mean time between orders of the item",
        lambda row: _gap(row.si_first, row.si_last, row.si_orders),
    ),
    Feature(
        "pair_cycle", "shopper × item", "shopper × item", "ratio",
        "days since the last order over the shopper's own mean gap: 1 is due, capped at 10",
        lambda row: _cycle(row, row.si_last, _gap(row.si_first, row.si_last, row.si_orders)),
    ),
    Feature(
        "pair_item_cycle", "shopper × item", "shopper × item", "ratio",
        "days since the last order over the item's mean gap of all shoppers, capped at 10",
        lambda row: _cycle(row, row.si_last, ratio(row.it_gap_sum / DAY, row.it_gaps)),
    ),
    Feature(
        "pair_quantity", "shopper × item", "shopper × item", "pieces",
        "mean pieces an order, capped at 20 an order",
        lambda row: ratio(row.si_quantity_milli / 1000, row.si_orders),
    ),
)  # fmt: skip

_CATEGORY = (
    Feature(
        "category_share", "shopper × attribute", "shopper × category", "share",
        "share of the shopper's orders that hold the item's category",
        lambda row: ratio(row.sc_orders.fill_null(0), row.sh_orders),
    ),
    Feature(
        "category_days_since", "shopper × attribute", "shopper × category", "days",
        "days since the shopper last bought in the category",
        lambda row: days_since(row, row.sc_last),
    ),
    Feature(
        "category_cycle", "shopper × attribute", "shopper × category", "ratio",
        "days since the last order in the category over the shopper's mean gap, capped at 10",
        lambda row: _cycle(row, row.sc_last, _gap(row.sc_first, row.sc_last, row.sc_orders)),
    ),
    Feature(
        "pair_share_of_category", "shopper × attribute", "shopper × item", "share",
        "share of the shopper's lines in the category that are this item",
        lambda row: ratio(row.si_orders.fill_null(0), row.sc_lines),
    ),
)  # fmt: skip


def _affinities(name: str) -> tuple[Feature, Feature]:
    return (
        Feature(
            f"{name}_share", "shopper × attribute", f"shopper × {name}", "share",
            f"share of the shopper's lines whose item has this {name}",
            lambda row: ratio(row[f"sa_{name}_lines"].fill_null(0), row.sh_lines),
        ),
        Feature(
            f"{name}_days_since", "shopper × attribute", f"shopper × {name}", "days",
            f"days since the shopper last bought an item with this {name}",
            lambda row: days_since(row, row[f"sa_{name}_last"]),
        ),
    )  # fmt: skip


def _trend(row: Table) -> Value:
    week = ratio(row.it_orders_7d.fill_null(0), row.all_orders_7d)
    return ratio(week, ratio(row.it_orders_28d.fill_null(0), row.all_orders_28d)).clip(upper=4.0)


_ITEM = (
    Feature(
        "item_popularity_28d", "item", "item", "share",
        "share of the last 28 days' shoppers who bought the item",
        lambda row: ratio(row.it_shoppers_28d.fill_null(0), row.all_shoppers_28d),
    ),
    Feature(
        "item_popularity_7d", "item", "item", "share of 1000 lines",
        "the item's lines among 1000 lines of the last 7 days",
        lambda row: ratio(1000 * row.it_orders_7d.fill_null(0), row.all_orders_7d),
    ),
    Feature(
        "item_rank", "item", "item", "percentile",
        "rank among all items by shoppers of the last 28 days: 0 is the most popular",
        lambda row: row.it_rank,
    ),
    Feature(
        "item_category_rank", "item", "item", "rank",
        "rank within the category by shoppers of the last 28 days, from 0, capped at 100",
        lambda row: row.it_category_rank.clip(upper=100),
    ),
    Feature(
        "item_trend", "item", "item", "ratio",
        "share of the last 7 days' lines over that of the last 28 days', capped at 4",
        _trend,
    ),
    Feature(
        "item_shoppers", "item", "item", "share",
        "share of the window's shoppers who bought the item",
        lambda row: ratio(row.it_shoppers.fill_null(0), row.all_shoppers),
    ),
    Feature(
        "item_repeat_rate", "item", "item", "share",
        "share of the item's shoppers who bought it more than once",
        lambda row: ratio(row.it_repeaters, row.it_shoppers),
    ),
)  # fmt: skip


def _paid(row: Table) -> Value:
    """Mean hundredths paid a piece, over the window."""
    return ratio(row.it_paid_cents * 1000, row.it_pieces_milli)


_PRICES = (
    Feature(
        "price", "price", "item", "currency",
        "the item's price",
        lambda row: row.price_cents / 100,
    ),
    Feature(
        "price_to_category", "price", "item", "ratio",
        "price over the median price of the category, capped at 10",
        lambda row: ratio(row.price_cents, row.category_price_cents).clip(upper=10.0),
    ),
    Feature(
        "price_to_paid", "price", "item", "ratio",
        "price over the mean paid a piece in 182 days, between 0.1 and 10: low is a bargain",
        lambda row: ratio(row.price_cents, _paid(row)).clip(0.1, 10.0),
    ),
    Feature(
        "price_to_shopper", "price", "shopper × item", "ratio",
        "price over what the shopper pays for a line on average, capped at 10",
        lambda row: ratio(row.price_cents, ratio(row.sh_paid_cents, row.sh_lines)).clip(
            upper=10.0
        ),
    ),
)  # fmt: skip


def _period(name: str) -> Feature:
    return Feature(
        f"period_{name}", "period", "item × time", "as declared",
        f"{name} of the period that holds at the group's time, 0 where none does",
        lambda row: row[f"period_{name}"].fill_null(0.0),
    )  # fmt: skip


_SHOPPER = (
    Feature(
        "shopper_orders_28d", "shopper", "shopper", "orders",
        "the shopper's orders in the last 28 days",
        lambda row: row.sh_orders_28d.fill_null(0),
    ),
    Feature(
        "shopper_days_since", "shopper", "shopper", "days",
        "days since the shopper's last order",
        lambda row: days_since(row, row.sh_last),
    ),
    Feature(
        "shopper_gap_days", "shopper", "shopper", "days",
        "the shopper's mean time between orders",
        lambda row: _gap(row.sh_first, row.sh_last, row.sh_orders),
    ),
    Feature(
        "shopper_basket", "shopper", "shopper", "lines",
        "mean lines an order",
        lambda row: ratio(row.sh_lines, row.sh_orders),
    ),
    Feature(
        "shopper_breadth", "shopper", "shopper", "share",
        "distinct items over lines: 1 never buys an item twice",
        lambda row: ratio(row.sh_items, row.sh_lines),
    ),
)  # fmt: skip

_TOGETHER = (
    Feature(
        "copurchase_sum", "copurchase", "shopper × item", "likeness",
        "summed cosine likeness of the item to the shopper's recent items",
        lambda row: row.co_sum.fill_null(0) / MILLION,
    ),
    Feature(
        "copurchase_max", "copurchase", "shopper × item", "likeness",
        "largest cosine likeness of the item to one of the shopper's recent items",
        lambda row: row.co_max.fill_null(0) / MILLION,
    ),
)  # fmt: skip


def _source(name: str) -> Feature:
    return Feature(
        f"from_{name}", "source", "shopper × item", "flag",
        f"1 where the source {name} proposes the item to the shopper",
        lambda row: row[f"from_{name}"].fill_null(0),
    )  # fmt: skip


_SOURCES = (
    *(_source(name) for name in SOURCES),
    Feature(
        "prior", "source", "shopper × item", "score",
        "the score by which proposals are cut to the surface's number of candidates",
        lambda row: row.prior.fill_null(0.0),
    ),
    Feature(
        "prior_rank", "source", "shopper × item", "rank",
        "rank of the item among the shopper's proposals by that score, from 1",
        lambda row: row.prior_rank,
    ),
)  # fmt: skip

_CONTEXT = (
    Feature(
        "hour", "context", "group", "hour (UTC)", "hour of the group's time",
        lambda row: row.group_time // (DAY // 24) % 24,
    ),
    Feature(
        "weekday", "context", "group", "day", "weekday of the group's time, Monday is 0",
        lambda row: (row.group_time // DAY + 3) % 7,
    ),
)  # fmt: skip


def _code(name: str) -> Feature:
    return Feature(
        name, "category code", "item", "code",
        f"stored code of the item's {name.removeprefix('item_')}, -1 where unknown",
        lambda row: ibis.coalesce(row[f"code_{name}"], -1),
        categorical=True,
    )  # fmt: skip
