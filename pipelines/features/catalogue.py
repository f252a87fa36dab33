"""Every feature in one place: name, family, grain, unit, meaning and expression.

An expression reads one joined row: a candidate of a group with the counters of its item, shopper,
pair, category and attributes (`counters.py`), its proposal (`candidates.py`) and the group's
time. Ratios, recencies and ranks rather than totals: totals grow with the shop, and a model that
leans on them ages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import ibis
import pyarrow as pa

from pipelines.features.candidates import SOURCES, from_source
from pipelines.features.counters import MILLION, attributes
from pipelines.features.engines.base import Table, Value
from pipelines.features.moment import DAY
from pipelines.features.state import codes
from pipelines.features.state.storage import Layout
from pipelines.shared.columns import BASELINE
from pipelines.shared.declaration import CandidateSource, Family
from pipelines.shared.errors import DeclarationError


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
    def idea(self) -> str:
        """Where the idea comes from."""
        return IDEAS[self.family]

    @property
    def type(self) -> pa.DataType:
        """int32 codes for categorical features, float32 otherwise; null where unknown."""
        return pa.int32() if self.categorical else pa.float32()


IDEAS: Final[dict[Family, str]] = {
    "pair": "repeat consumption by frequency, recency and gap (Anderson et al. 2014; Bhagat et al. "
    "2018, buy-it-again)",
    "affinity": "attribute preferences of a shopper (Rendle et al. 2010, next baskets)",
    "item": "popularity in windows and with decay (Ji et al. 2020, a re-visit of popularity)",
    "price": "price against reference prices (Kalyanaram and Winer 1995)",
    "period": "display and feature advertising (Blattberg and Neslin 1990)",
    "shopper": "recency, frequency, monetary value (Fader et al. 2005)",
    "copurchase": "item-item cosine (Sarwar et al. 2001)",
    "exposure": "click-through history and position (Richardson et al. 2007)",
    "latent": "implicit ALS (Hu, Koren and Volinsky 2008)",
    "candidate": "what the retrieval stage knew, given to the ranker (Covington et al. 2016)",
    "context": "time of the visit (Baltrunas and Amatriain 2009)",
    "code": "categories as they are (Ke et al. 2017, LightGBM)",
}


def catalogue(layout: Layout) -> tuple[Feature, ...]:
    """The features of a shop: a shop without prices, attributes or periods has fewer.

    `BASELINE` is always one, since a first model has to beat it.

    Raises:
        DeclarationError: a declared attribute's name makes two features of one name.
    """
    item, declared = layout.shop.item, layout.shop.features
    logged = layout.shop.surface.impressions is not None
    every = (
        *_PAIR, *_CATEGORY,
        *(feature for name in attributes(layout) for feature in _affinities(name)),
        *_ITEM, *(_PRICES if item.price else ()),
        *(_period(name) for name in layout.period_attributes),
        *_SHOPPER, *_COPURCHASE, *(_EXPOSURE if logged else ()), *_LATENT,
        *(_source(name) for name in SOURCES if name in declared.sources), *_PRIOR,
        *_CONTEXT, *(_code(name) for name in codes.features(layout)),
    )  # fmt: skip
    features = tuple(
        feature
        for feature in every
        if feature.family in declared.families or feature.name == BASELINE
    )
    names = [feature.name for feature in features]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DeclarationError(
            f"shop {layout.shop.shop}: a declared attribute makes a second feature named "
            f"{', '.join(twice)}; rename the attribute under item.attributes in shop.yaml"
        )
    return features


def types(layout: Layout) -> dict[str, pa.DataType]:
    """Feature → Arrow type."""
    return {feature.name: feature.type for feature in catalogue(layout)}


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
        "pair_orders", "pair", "shopper × item", "orders",
        "orders with the item in 364 days, weighed by the strength of the event",
        lambda row: row.si_weight_milli.fill_null(0) / 1000,
    ),
    Feature(
        "pair_orders_28d", "pair", "shopper × item", "orders",
        "orders with the item in the last 28 days",
        lambda row: row.si_orders_28d.fill_null(0),
    ),
    Feature(
        "pair_orders_faded", "pair", "shopper × item", "orders",
        "orders with the item; one of 42 days ago counts half",
        lambda row: row.si_decayed_millionth.fill_null(0) / MILLION,
    ),
    Feature(
        "pair_share", "pair", "shopper × item", "share",
        "share of the shopper's orders that hold the item",
        lambda row: ratio(row.si_orders.fill_null(0), row.sh_orders),
    ),
    Feature(
        "pair_days_since", "pair", "shopper × item", "days",
        "days since the shopper last bought the item",
        lambda row: days_since(row, row.si_last),
    ),
    Feature(
        "pair_gap_days", "pair", "shopper × item", "days",
        "the shopper's mean time between orders of the item",
        lambda row: _gap(row.si_first, row.si_last, row.si_orders),
    ),
    Feature(
        "pair_cycle", "pair", "shopper × item", "ratio",
        "days since the last order over the shopper's own mean gap: 1 is due, capped at 10",
        lambda row: _cycle(row, row.si_last, _gap(row.si_first, row.si_last, row.si_orders)),
    ),
    Feature(
        "pair_item_cycle", "pair", "shopper × item", "ratio",
        "days since the last order over the item's mean gap of all shoppers, capped at 10",
        lambda row: _cycle(row, row.si_last, ratio(row.it_gap_sum / DAY, row.it_gaps)),
    ),
    Feature(
        "pair_regularity", "pair", "shopper × item", "ratio",
        "the shopper's mean gap between orders of the item over the item's mean gap of all, to 10",
        lambda row: ratio(
            _gap(row.si_first, row.si_last, row.si_orders), ratio(row.it_gap_sum / DAY, row.it_gaps)
        ).clip(upper=10.0),
    ),
    Feature(
        "pair_faded_share", "pair", "shopper × item", "share",
        "the item's part of all the shopper's decayed orders",
        lambda row: ratio(row.si_decayed_millionth.fill_null(0), row.sh_decayed_millionth),
    ),
    Feature(
        "pair_quantity", "pair", "shopper × item", "pieces",
        "mean pieces an order, capped at 20 an order",
        lambda row: ratio(row.si_quantity_milli / 1000, row.si_orders),
    ),
)  # fmt: skip

_CATEGORY = (
    Feature(
        "category_share", "affinity", "shopper × category", "share",
        "share of the shopper's orders that hold the item's category",
        lambda row: ratio(row.sc_orders.fill_null(0), row.sh_orders_182d),
    ),
    Feature(
        "category_days_since", "affinity", "shopper × category", "days",
        "days since the shopper last bought in the category",
        lambda row: days_since(row, row.sc_last),
    ),
    Feature(
        "category_cycle", "affinity", "shopper × category", "ratio",
        "days since the last order in the category over the shopper's mean gap, capped at 10",
        lambda row: _cycle(row, row.sc_last, _gap(row.sc_first, row.sc_last, row.sc_orders)),
    ),
    Feature(
        "pair_share_of_category", "affinity", "shopper × item", "share",
        "orders with the item over the shopper's lines in the category of 182 days, capped at 2",
        lambda row: ratio(row.si_orders.fill_null(0), row.sc_lines).clip(upper=2.0),
    ),
)  # fmt: skip


def _affinities(name: str) -> tuple[Feature, Feature]:
    return (
        Feature(
            f"{name}_share", "affinity", f"shopper × {name}", "share",
            f"share of the shopper's lines whose item has this {name}",
            lambda row: ratio(row[f"sa_{name}_lines"].fill_null(0), row.sh_lines_182d),
        ),
        Feature(
            f"{name}_days_since", "affinity", f"shopper × {name}", "days",
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
        "item_faded_share", "item", "item", "share of 1000 lines",
        "the item's lines among 1000 lines of 182 days; one of 42 days ago counts half",
        lambda row: ratio(1000 * row.it_decayed_millionth.fill_null(0), row.all_decayed_millionth),
    ),
    Feature(
        "item_novelty_days", "item", "item", "days",
        "days since the item was first bought, 364 at most",
        lambda row: days_since(row, row.it_first),
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
        "shopper_spend", "shopper", "shopper", "currency",
        "mean paid an order",
        lambda row: ratio(row.sh_paid_cents / 100, row.sh_orders),
    ),
    Feature(
        "shopper_breadth", "shopper", "shopper", "share",
        "distinct items over lines: 1 never buys an item twice",
        lambda row: ratio(row.sh_items, row.sh_lines),
    ),
)  # fmt: skip

_COPURCHASE = (
    Feature(
        "copurchase_sum", "copurchase", "shopper × item", "similarity",
        "summed cosine similarity of the item to the shopper's recent items",
        lambda row: row.co_sum.fill_null(0) / MILLION,
    ),
    Feature(
        "copurchase_max", "copurchase", "shopper × item", "similarity",
        "largest cosine similarity of the item to one of the shopper's recent items",
        lambda row: row.co_max.fill_null(0) / MILLION,
    ),
)  # fmt: skip


def _position(row: Table) -> Value:
    return ratio(row.ex_position_sum, row.ex_shown)


_EXPOSURE = (
    Feature(
        "item_taken_share", "exposure", "item", "ratio",
        "lines of 28 days over showings, one and ten added, so that rare ones say little",
        lambda row: (row.ex_taken.fill_null(0) + 1) / (row.ex_shown.fill_null(0) + 10),
    ),
    Feature(
        "item_mean_position", "exposure", "item", "position",
        "mean position at which the item was shown in 28 days",
        _position,
    ),
    Feature(
        "pair_shown", "exposure", "shopper × item", "showings",
        "how often the shopper was shown the item in 28 days",
        lambda row: row.ex_pair_shown.fill_null(0),
    ),
    Feature(
        "pair_ignored", "exposure", "shopper × item", "showings",
        "how often in 28 days since the shopper last took it",
        lambda row: row.ex_pair_ignored.fill_null(0),
    ),
)  # fmt: skip

_LATENT = (
    Feature(
        "latent_score", "latent", "shopper × item", "score",
        "inner product of the shopper's and the item's factors, about 1 for a sure pair",
        lambda row: row.latent_score,
    ),
)  # fmt: skip


def _source(name: CandidateSource) -> Feature:
    return Feature(
        f"from_{name}", "candidate", "shopper × item", "flag",
        f"1 where the source {name} proposes the item to the shopper",
        lambda row: from_source(row, name),
    )  # fmt: skip


_PRIOR = (
    Feature(
        "prior", "candidate", "shopper × item", "score",
        "the score by which proposals are cut to the surface's number of candidates",
        lambda row: row.prior.fill_null(0.0),
    ),
    Feature(
        "prior_rank", "candidate", "shopper × item", "rank",
        "rank of the item among the shopper's proposals by that score, from 1",
        lambda row: row.prior_rank,
    ),
)  # fmt: skip


def _year(row: Table) -> Value:
    return row.group_time / (365.25 * DAY) * (2 * math.pi)


_CONTEXT = (
    Feature(
        "hour", "context", "group", "hour (UTC)", "hour of the group's time",
        lambda row: row.group_time // (DAY // 24) % 24,
    ),
    Feature(
        "weekday", "context", "group", "day", "weekday of the group's time, Monday is 0",
        lambda row: (row.group_time // DAY + 3) % 7,
    ),
    Feature(
        "season_sine", "context", "group", "-1 … 1", "sine of the place in the year of 365.25 days",
        lambda row: _year(row).sin(),
    ),
    Feature(
        "season_cosine", "context", "group", "-1 … 1", "cosine of the place in the year",
        lambda row: _year(row).cos(),
    ),
)  # fmt: skip


def _code(name: str) -> Feature:
    return Feature(
        name, "code", "item", "code",
        f"stored code of the item's {name.removeprefix('item_')}, -1 where unknown",
        lambda row: ibis.coalesce(row[f"code_{name}"], -1),
        categorical=True,
    )  # fmt: skip
