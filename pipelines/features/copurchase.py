"""Copurchase: the items most similar to each item by what is bought with it, and what they say of
a shopper's candidates.

The similarity of two items is the cosine of their session vectors, c(a,b) / √(n(a) n(b))
(Sarwar et al. 2001).
"""

from __future__ import annotations

from typing import Final

import ibis

from pipelines.features.counters import MILLION, Counters, recent
from pipelines.features.engines.base import Engine, Table, place
from pipelines.shared.columns import ITEM, SHOPPER

DAYS: Final = 56
LEAST: Final = 3
"""Sessions that must hold both items."""
MOST_ITEMS: Final = 100
"""A session with more items says little about which are alike, and costs their square."""
NEIGHBOURS: Final = 20
RECENT_ITEMS: Final = 40

_MANY: Final = 1 << 31


def neighbours(engine: Engine, counters: Counters) -> Table:
    """The most similar items of each item `beside`: `item_id`, `similarity` in millionths."""
    lines = counters.lines
    lately = engine.materialize(
        lines.filter(recent(lines, counters.as_of, DAYS)).select("session", ITEM)
    )
    held = lately.group_by(ITEM).agg(held=lately.count())
    frequent = held.filter(held.held >= LEAST)
    frequent = engine.materialize(
        frequent.mutate(code=ibis.row_number().over(ibis.window(order_by=ITEM)).cast("int64"))
    )
    size = lately.group_by("session").agg(size=lately.count())
    numbered = size.filter(size["size"] <= MOST_ITEMS).select("session")
    numbered = numbered.mutate(basket=ibis.row_number().over(ibis.window(order_by="session")))
    baskets = engine.materialize(
        lately.inner_join(frequent, ITEM).inner_join(numbered, "session").select("basket", "code")
    )
    both = engine.materialize(_both(baskets))
    similar = _named(both, frequent)
    similar = similar.mutate(_place=place(similar, "similarity", "beside"))
    return similar.filter(similar._place < NEIGHBOURS).select("beside", ITEM, "similarity")


def _both(baskets: Table) -> Table:
    """Codes of two items and in how many baskets both lie: `one` < `two`, `both`.

    One number stands for a pair, so that counting them is counting numbers.
    """
    other = baskets.view()
    met = baskets.inner_join(
        other, [baskets.basket == other.basket, baskets.code < other.code]
    ).select(pair=baskets.code * _MANY + other.code)
    counted = met.group_by("pair").agg(both=met.count())
    counted = counted.filter(counted.both >= LEAST)
    return counted.select(one=counted.pair // _MANY, two=counted.pair % _MANY, both=counted.both)


def _named(both: Table, frequent: Table) -> Table:
    """Pairs of codes as items, both ways round, with their similarity."""
    turned = both.union(both.select(one=both.two, two=both.one, both=both.both))
    first = frequent.select(one=frequent.code, beside=frequent[ITEM], held_one=frequent.held)
    second = frequent.select(two=frequent.code, item_id=frequent[ITEM], held_two=frequent.held)
    pairs = turned.inner_join(first, "one").inner_join(second, "two")
    apart = (pairs.held_one * pairs.held_two).cast("float64").sqrt()
    return pairs.select(
        "beside", ITEM, similarity=(pairs.both * MILLION / apart).round().cast("int64")
    )


def scores(near: Table, own: Table) -> Table:
    """Sum and maximum of an item's similarity to the shopper's recent items.

    Args:
        near: see `neighbours`.
        own: the pairs of some shoppers.

    Returns:
        shopper × item: `co_sum`, `co_max`, in millionths, `co_rank` from 0.
    """
    by_time = ibis.window(group_by=SHOPPER, order_by=[ibis.desc(own.si_last), ITEM])
    latest = own.mutate(_place=ibis.row_number().over(by_time))
    latest = latest.filter(latest._place < RECENT_ITEMS).select(SHOPPER, beside=ITEM)
    met = latest.inner_join(near, "beside")
    scored = met.group_by([SHOPPER, ITEM]).agg(
        co_sum=met.similarity.sum().cast("int64"), co_max=met.similarity.max()
    )
    return scored.mutate(co_rank=place(scored, "co_sum", SHOPPER))
