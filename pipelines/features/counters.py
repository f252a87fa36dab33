"""Counters over the window before a time: the ground every feature and candidate stands on.

All are integers or quotients of integers, so that no order of summation shows in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ibis

from pipelines.features.engine import Engine, Table, Value, attach, attach_all
from pipelines.features.events import DAY
from pipelines.features.storage import Layout
from pipelines.shared.columns import ITEM, SHOPPER

WINDOW_DAYS: Final = 182
"""How far back features look."""
MONTH_DAYS: Final = 28
WEEK_DAYS: Final = 7
HALF_LIFE_DAYS: Final = 42
"""After so many days an order counts half in the decayed count."""
QUANTITY_CAP: Final = 20
"""Pieces of one line that count; fuel is sold by the thousand."""
MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Counters:
    """Tables of counters as of one time; columns carry the prefix of their grain."""

    items: Table
    """item: everything known of it (`it_…`, attributes, codes, price)."""
    shoppers: Table
    """shopper: `sh_…`."""
    pairs: Table
    """shopper × item: `si_…`."""
    categories: Table
    """shopper × category: `sc_…`."""
    attributes: dict[str, Table]
    """shopper × value of a declared attribute: `sa_<name>_…`, by attribute."""
    totals: Table
    """One row: `all_…`."""
    lines: Table
    """What was counted: shopper, session, item, time."""
    now: int


def count(engine: Engine, lines: Table, items: Table, layout: Layout, now: int) -> Counters:
    """Count the window's lines.

    Args:
        lines: see `events.lines`; all before `now`.
        items: encoded items (see `codes.encode`).
        now: microseconds since 1970.
    """
    kept = engine.keep(lines)
    known = engine.keep(items.drop("_position"))
    named = kept.filter(kept[SHOPPER].notnull())
    described = engine.keep(attach(named, known.select(ITEM, *_attribute_names(layout)), ITEM))
    pairs = engine.keep(_pairs(named, now))
    totals = engine.keep(_totals(kept, now))
    return Counters(
        items=engine.keep(_items(kept, pairs, known, now)),
        shoppers=engine.keep(_shoppers(named, now)),
        pairs=pairs,
        categories=engine.keep(_affinity(described, "item_category", "sc")),
        attributes={
            name: engine.keep(_affinity(described, f"item_{name}", f"sa_{name}"))
            for name in layout.shop.item.attributes
        },
        totals=totals,
        lines=kept,
        now=now,
    )


def _attribute_names(layout: Layout) -> list[str]:
    return ["item_category", *(f"item_{name}" for name in layout.shop.item.attributes)]


def recent(lines: Table, now: int, days: int) -> Value:
    """Whether a line lies in the last `days` days."""
    return lines.time >= now - days * DAY


def _pairs(lines: Table, now: int) -> Table:
    half_lives = (now - lines.time) / (HALF_LIFE_DAYS * DAY)
    faded = (lines.weight * 1000 * (0.5**half_lives)).round().cast("int64")
    capped = lines.quantity_milli.clip(0, QUANTITY_CAP * 1000)
    return (
        lines.mutate(_faded=faded, _capped=capped)
        .group_by([SHOPPER, ITEM])
        .agg(
            si_orders=lambda row: row.count(),
            si_orders_28d=lambda row: recent(row, now, MONTH_DAYS).cast("int64").sum(),
            si_weight_milli=lambda row: row.weight.sum(),
            si_faded_millionth=lambda row: row._faded.sum(),
            si_first=lambda row: row.time.min(),
            si_last=lambda row: row.time.max(),
            si_quantity_milli=lambda row: row._capped.sum(),
        )
    )


def _items(lines: Table, pairs: Table, known: Table, now: int) -> Table:
    month = recent(lines, now, MONTH_DAYS)
    sold = lines.group_by(ITEM).agg(
        it_orders=lines.count(),
        it_orders_28d=month.cast("int64").sum(),
        it_orders_7d=recent(lines, now, WEEK_DAYS).cast("int64").sum(),
        it_shoppers_28d=lines[SHOPPER].nunique(where=month),
        it_paid_cents=lines.price_cents.sum().cast("int64"),
        it_pieces_milli=lines.quantity_milli.sum().cast("int64"),
    )
    returning = pairs.si_orders > 1
    by_shopper = pairs.group_by(ITEM).agg(
        it_shoppers=pairs.count(),
        it_repeaters=returning.cast("int64").sum(),
        it_gaps=(pairs.si_orders - 1).sum(),
        it_gap_sum=(pairs.si_last - pairs.si_first).sum().cast("int64"),
    )
    sold = attach(sold, by_shopper, ITEM)
    priced = known.filter(known.price_cents.notnull() & known.item_category.notnull())
    typical = priced.group_by("item_category").agg(category_price_cents=priced.price_cents.median())
    all_items = attach(known.select(ITEM).union(sold.select(ITEM), distinct=True), known, ITEM)
    joined = attach_all(all_items, [(sold, (ITEM,)), (typical, ("item_category",))])
    popular = ibis.window(order_by=ibis.desc(joined.it_shoppers_28d.fill_null(0)))
    rivals = ibis.window(
        group_by="item_category", order_by=ibis.desc(joined.it_shoppers_28d.fill_null(0))
    )
    return joined.mutate(
        it_rank=ibis.percent_rank().over(popular),
        it_category_rank=ibis.rank().over(rivals),
    ).mutate(**{name: lambda row, name=name: row[name].fill_null(-1) for name in _codes(known)})


def _codes(known: Table) -> list[str]:
    return [name for name in known.columns if name.startswith("code_")]


def _shoppers(lines: Table, now: int) -> Table:
    sessions = lines.group_by([SHOPPER, "session"]).agg(time=lines.time.min())
    by_session = sessions.group_by(SHOPPER).agg(
        sh_orders=sessions.count(),
        sh_orders_28d=recent(sessions, now, MONTH_DAYS).cast("int64").sum(),
        sh_first=sessions.time.min(),
        sh_last=sessions.time.max(),
    )
    by_line = lines.group_by(SHOPPER).agg(
        sh_lines=lines.count(),
        sh_items=lines[ITEM].nunique(),
        sh_paid_cents=lines.price_cents.sum().cast("int64"),
    )
    return attach(by_session, by_line, SHOPPER)


def _affinity(described: Table, name: str, prefix: str) -> Table:
    """How often a shopper's sessions held a value of an attribute, and when first and last."""
    valued = described.filter(described[name].notnull())
    sessions = valued.group_by([SHOPPER, name, "session"]).agg(
        time=valued.time.max(), lines=valued.count()
    )
    return sessions.group_by([SHOPPER, name]).agg(
        **{
            f"{prefix}_orders": sessions.count(),
            f"{prefix}_lines": sessions.lines.sum(),
            f"{prefix}_first": sessions.time.min(),
            f"{prefix}_last": sessions.time.max(),
        }
    )


def _totals(lines: Table, now: int) -> Table:
    month = recent(lines, now, MONTH_DAYS)
    return lines.agg(
        all_orders_28d=month.cast("int64").sum().fill_null(0),
        all_orders_7d=recent(lines, now, WEEK_DAYS).cast("int64").sum().fill_null(0),
        all_shoppers=lines[SHOPPER].nunique(),
        all_shoppers_28d=lines[SHOPPER].nunique(where=month),
    )
