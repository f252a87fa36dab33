"""Counters over the window before a time: the ground every feature and candidate stands on.

All are integers or quotients of integers, so that no order of summation shows in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ibis

from pipelines.features.engines.base import Engine, Table, Value, attach, attach_all
from pipelines.features.moment import DAY, AsOf, micros
from pipelines.features.state.storage import Layout
from pipelines.shared.columns import ITEM, SHOPPER
from pipelines.shared.models.vocabulary import UNKNOWN

WINDOW_DAYS: Final = 364
"""How far back features look."""
AFFINITY_DAYS: Final = 182
"""How far back a shopper's leanings and the prices paid look."""
MONTH_DAYS: Final = 28
WEEK_DAYS: Final = 7
HALF_LIFE_DAYS: Final = 42
"""After so many days an order counts half in the decayed counts."""
QUANTITY_CAP: Final = 20
"""Pieces of one line that count; fuel is sold by the thousand."""
PRICE_BANDS: Final = 5
MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Counters:
    """Tables of counters as of one time; columns carry the prefix of their grain."""

    items: Table
    """item: everything known of it (`it_…`, attributes, codes, price, price band)."""
    shoppers: Table
    """shopper: `sh_…`."""
    pairs: Table
    """shopper × item: `si_…`."""
    categories: Table
    """shopper × category: `sc_…`."""
    attributes: dict[str, Table]
    """shopper × value of an attribute or the price band: `sa_<name>_…`, by name."""
    totals: Table
    """One row: `all_…`."""
    lines: Table
    """What was counted: shopper, session, item, time, decayed."""
    as_of: AsOf


def attributes(layout: Layout) -> tuple[str, ...]:
    """The attributes whose values a shopper can lean to; a price has a band."""
    band = ("price_band",) if layout.shop.item.price else ()
    return (*layout.shop.item.attributes, *band)


def count(engine: Engine, lines: Table, items: Table, layout: Layout, as_of: AsOf) -> Counters:
    """Count the window's lines.

    Args:
        lines: see `events.lines`; all before the time.
        items: encoded items (see `codes.encode`).
    """
    counted = engine.materialize(lines.mutate(decayed=_decayed(lines, as_of)))
    known = engine.materialize(_banded(items.drop("_position")))
    named = counted.filter(counted[SHOPPER].notnull())
    leaning = named.filter(recent(named, as_of, AFFINITY_DAYS))
    held = [f"item_{name}" for name in attributes(layout)]
    described = engine.materialize(
        attach(leaning, known.select(ITEM, "item_category", *held), ITEM)
    )
    pairs = engine.materialize(_pairs(named, as_of))
    return Counters(
        items=engine.materialize(_items(counted, pairs, known, as_of)),
        shoppers=engine.materialize(_shoppers(named, as_of)),
        pairs=pairs,
        categories=engine.materialize(_categories(described)),
        attributes={
            name: engine.materialize(_affinity(described, name)) for name in attributes(layout)
        },
        totals=engine.materialize(_totals(counted, as_of)),
        lines=counted,
        as_of=as_of,
    )


def _banded(items: Table) -> Table:
    """Items with `item_price_band`: a fifth of their category by price, 0 is the cheapest."""
    by_price = ibis.window(group_by="item_category", order_by=[items.price_cents, items[ITEM]])
    band = ibis.ntile(PRICE_BANDS).over(by_price).cast("int64")
    return items.mutate(item_price_band=ibis.ifelse(items.price_cents.notnull(), band, None))


def recent(lines: Table, as_of: AsOf, days: int) -> Value:
    """Whether a line lies in the last `days` days."""
    return lines.time >= micros(as_of.ago(days))


def _decayed(lines: Table, as_of: AsOf) -> Value:
    """What a line still counts, in millionths."""
    half_lives = (as_of.micros - lines.time) / (HALF_LIFE_DAYS * DAY)
    return (lines.weight * 1000 * (0.5**half_lives)).round().cast("int64")


def _pairs(lines: Table, as_of: AsOf) -> Table:
    capped = lines.quantity_milli.clip(0, QUANTITY_CAP * 1000)
    return (
        lines.mutate(_capped=capped)
        .group_by([SHOPPER, ITEM])
        .agg(
            si_orders=lambda row: row.count(),
            si_orders_28d=lambda row: recent(row, as_of, MONTH_DAYS).cast("int64").sum(),
            si_weight_milli=lambda row: row.weight.sum(),
            si_decayed_millionth=lambda row: row.decayed.sum(),
            si_first=lambda row: row.time.min(),
            si_last=lambda row: row.time.max(),
            si_quantity_milli=lambda row: row._capped.sum(),
        )
    )


def _items(lines: Table, pairs: Table, known: Table, as_of: AsOf) -> Table:
    lately = lines.filter(recent(lines, as_of, AFFINITY_DAYS))
    month = recent(lately, as_of, MONTH_DAYS)
    sold = lately.group_by(ITEM).agg(
        it_orders_28d=month.cast("int64").sum(),
        it_orders_7d=recent(lately, as_of, WEEK_DAYS).cast("int64").sum(),
        it_shoppers_28d=lately[SHOPPER].nunique(where=month),
        it_decayed_millionth=lately.decayed.sum(),
        it_paid_cents=lately.price_cents.sum().cast("int64"),
        it_pieces_milli=lately.quantity_milli.sum().cast("int64"),
    )
    returning = pairs.si_orders > 1
    by_shopper = pairs.group_by(ITEM).agg(
        it_shoppers=pairs.count(),
        it_repeaters=returning.cast("int64").sum(),
        it_gaps=(pairs.si_orders - 1).sum(),
        it_gap_sum=(pairs.si_last - pairs.si_first).sum().cast("int64"),
        it_first=pairs.si_first.min(),
    )
    priced = known.filter(known.price_cents.notnull() & known.item_category.notnull())
    typical = priced.group_by("item_category").agg(category_price_cents=priced.price_cents.median())
    met = sold.select(ITEM).union(by_shopper.select(ITEM), distinct=True)
    all_items = attach(known.select(ITEM).union(met, distinct=True), known, ITEM)
    joined = attach_all(
        all_items, [(sold, (ITEM,)), (by_shopper, (ITEM,)), (typical, ("item_category",))]
    )
    popular = ibis.window(order_by=ibis.desc(joined.it_shoppers_28d.fill_null(0)))
    rivals = ibis.window(
        group_by="item_category", order_by=ibis.desc(joined.it_shoppers_28d.fill_null(0))
    )
    coded = [name for name in known.columns if name.startswith("code_")]
    return joined.mutate(
        it_rank=ibis.percent_rank().over(popular),
        it_category_rank=ibis.rank().over(rivals),
        **{name: joined[name].fill_null(UNKNOWN) for name in coded},
    )


def _shoppers(lines: Table, as_of: AsOf) -> Table:
    sessions = lines.group_by([SHOPPER, "session"]).agg(
        time=lines.time.min(),
        lines=lines.count(),
        paid=lines.price_cents.sum().cast("int64"),
        decayed=lines.decayed.sum(),
    )
    lately = recent(sessions, as_of, AFFINITY_DAYS)
    by_session = sessions.group_by(SHOPPER).agg(
        sh_orders=sessions.count(),
        sh_orders_182d=lately.cast("int64").sum(),
        sh_orders_28d=recent(sessions, as_of, MONTH_DAYS).cast("int64").sum(),
        sh_first=sessions.time.min(),
        sh_last=sessions.time.max(),
        sh_lines=sessions.lines.sum(),
        sh_lines_182d=sessions.lines.sum(where=lately),
        sh_paid_cents=sessions.paid.sum().cast("int64"),
        sh_decayed_millionth=sessions.decayed.sum().cast("int64"),
    )
    by_line = lines.group_by(SHOPPER).agg(sh_items=lines[ITEM].nunique())
    return attach(by_session, by_line, SHOPPER)


def _categories(described: Table) -> Table:
    """How many of a shopper's sessions held a category, and when first and last."""
    valued = described.filter(described.item_category.notnull())
    sessions = valued.group_by([SHOPPER, "item_category", "session"]).agg(
        time=valued.time.max(), lines=valued.count()
    )
    return sessions.group_by([SHOPPER, "item_category"]).agg(
        sc_orders=sessions.count(),
        sc_lines=sessions.lines.sum(),
        sc_first=sessions.time.min(),
        sc_last=sessions.time.max(),
    )


def _affinity(described: Table, name: str) -> Table:
    """How many of a shopper's lines hold a value of an attribute, and when last."""
    valued = described.filter(described[f"item_{name}"].notnull())
    return valued.group_by([SHOPPER, f"item_{name}"]).agg(
        **{f"sa_{name}_lines": valued.count(), f"sa_{name}_last": valued.time.max()}
    )


def _totals(lines: Table, as_of: AsOf) -> Table:
    month = recent(lines, as_of, MONTH_DAYS)
    lately = recent(lines, as_of, AFFINITY_DAYS)
    return lines.agg(
        all_orders_28d=month.cast("int64").sum().fill_null(0),
        all_orders_7d=recent(lines, as_of, WEEK_DAYS).cast("int64").sum().fill_null(0),
        all_decayed_millionth=lines.decayed.sum(where=lately).cast("int64").fill_null(0),
        all_shoppers=lines[SHOPPER].nunique(),
        all_shoppers_28d=lines[SHOPPER].nunique(where=month),
    )
