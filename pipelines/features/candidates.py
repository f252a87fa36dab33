"""Candidates: which items are considered for a shopper, from where, and how many.

Sources: what the shopper bought (repurchase), what many bought of late (popularity), the top
items of the shopper's categories (category), and what is bought together with the shopper's
recent items (copurchase).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Final

import ibis

from pipelines.features.counters import MILLION, Counters, recent
from pipelines.features.engine import Engine, Table, Value, attach_all
from pipelines.shared.columns import ITEM, SHOPPER

SOURCES: Final = ("repurchase", "popularity", "category", "copurchase")

POPULAR_ITEMS: Final = 300
CATEGORIES: Final = 40
ITEMS_A_CATEGORY: Final = 10

TOGETHER_DAYS: Final = 56
TOGETHER_LEAST: Final = 3
"""Sessions that must hold both items."""
TOGETHER_MOST_ITEMS: Final = 100
"""A session with more items says little about which belong together, and costs their square."""
NEIGHBOURS: Final = 20
RECENT_ITEMS: Final = 40
COPURCHASED: Final = 200


@dataclass(frozen=True)
class Proposals:
    """What was proposed for some shoppers, before the cap."""

    pairs: Table
    """shopper × item: `from_<source>`, `prior`, `prior_rank` (from 1, within the shopper)."""
    together: Table
    """shopper × item: `co_sum`, `co_max`, in millionths, also beyond the proposals."""


def propose(engine: Engine, counters: Counters, shoppers: Table) -> Proposals:
    """Propose items.

    Args:
        shoppers: one column, the shoppers to propose for, without repeats; cold ones get what
            is popular.
    """
    own = engine.keep(counters.pairs.semi_join(shoppers, SHOPPER))
    together = engine.keep(_together(engine, counters, own))
    sources = {
        "repurchase": own.select(SHOPPER, ITEM),
        "popularity": shoppers.cross_join(_popular(counters)),
        "category": _of_categories(counters, shoppers),
        "copurchase": together.filter(together.co_rank < COPURCHASED).select(SHOPPER, ITEM),
    }
    marked = [
        pairs.mutate(**{f"from_{other}": ibis.literal(other == name, "int8") for other in SOURCES})
        for name, pairs in sources.items()
    ]
    stacked = reduce(ibis.union, marked)
    merged = stacked.group_by([SHOPPER, ITEM]).agg(
        **{f"from_{name}": stacked[f"from_{name}"].max() for name in SOURCES}
    )
    return Proposals(engine.keep(_ranked(merged, own, counters)), together.drop("co_rank"))


def _ranked(merged: Table, own: Table, counters: Counters) -> Table:
    """Order a shopper's proposals by a simple prior.

    prior = √(faded orders of the item · (0.3 + its repeat rate)) + 2 p + ½ √(10 · share of the
    shopper's orders that hold its category · p), where p is the share of the last 28 days'
    shoppers who bought the item. Chosen among some thirty such sums by candidate recall at 300 on
    the bundled year; a boosted model of all features, as a prior, found one point more at most.
    The ranker sees it as a feature.
    """
    items = counters.items.select(
        ITEM, "item_category", "it_shoppers_28d", "it_repeaters", "it_shoppers"
    )
    rows = attach_all(
        merged,
        [
            (items, (ITEM,)),
            (own.select(SHOPPER, ITEM, "si_faded_millionth"), (SHOPPER, ITEM)),
            (counters.shoppers.select(SHOPPER, "sh_orders"), (SHOPPER,)),
            (
                counters.categories.select(SHOPPER, "item_category", "sc_orders"),
                (SHOPPER, "item_category"),
            ),
        ],
    ).cross_join(counters.totals.select("all_shoppers_28d"))
    popular = rows.it_shoppers_28d.fill_null(0) / rows.all_shoppers_28d.clip(lower=1)
    repeat_rate = (rows.it_repeaters / rows.it_shoppers).fill_null(0)
    own_orders = rows.si_faded_millionth.fill_null(0) / MILLION * (0.3 + repeat_rate)
    of_category = 10 * (rows.sc_orders / rows.sh_orders).fill_null(0) * popular
    scored = rows.select(
        SHOPPER,
        ITEM,
        *(f"from_{name}" for name in SOURCES),
        prior=(own_orders.sqrt() + 2 * popular + 0.5 * of_category.sqrt()).round(9),
    )
    return scored.mutate(prior_rank=_place(scored, "prior", SHOPPER) + 1)


def _place(rows: Table, score: str, *within: str) -> Value:
    """Rank from 0 by a score, the largest first; items settle ties."""
    order = ibis.window(group_by=list(within), order_by=[ibis.desc(rows[score]), ITEM])
    return ibis.row_number().over(order)


def _popular(counters: Counters) -> Table:
    """Items that most shoppers bought in the last 28 days."""
    sold = counters.items.filter(counters.items.it_shoppers_28d > 0)
    order = [ibis.desc(sold.it_shoppers_28d), ITEM]
    return sold.order_by(order).limit(POPULAR_ITEMS).select(ITEM)


def _of_categories(counters: Counters, shoppers: Table) -> Table:
    """The top items of the categories in which the shopper bought most often."""
    sold = counters.items.filter(
        (counters.items.it_shoppers_28d > 0) & counters.items.item_category.notnull()
    )
    tops = sold.mutate(_place=_place(sold, "it_shoppers_28d", "item_category"))
    tops = tops.filter(tops._place < ITEMS_A_CATEGORY)
    mine = counters.categories.semi_join(shoppers, SHOPPER)
    order = ibis.window(group_by=SHOPPER, order_by=[ibis.desc(mine.sc_orders), "item_category"])
    mine = mine.mutate(_place=ibis.row_number().over(order))
    mine = mine.filter(mine._place < CATEGORIES)
    return mine.inner_join(tops, "item_category").select(SHOPPER, ITEM)


def _together(engine: Engine, counters: Counters, own: Table) -> Table:
    """What is bought together with the shopper's recent items, and how much it is.

    The likeness of two items is the cosine of their session vectors, c(a,b) / √(n(a) n(b))
    (Sarwar et al. 2001); the scores are its sum and maximum over the shopper's recent items.
    """
    near = engine.keep(_neighbours(engine, counters))
    by_time = ibis.window(group_by=SHOPPER, order_by=[ibis.desc(own.si_last), ITEM])
    latest = own.mutate(_place=ibis.row_number().over(by_time))
    latest = latest.filter(latest._place < RECENT_ITEMS).select(SHOPPER, beside=ITEM)
    met = latest.inner_join(near, "beside")
    scores = met.group_by([SHOPPER, ITEM]).agg(
        co_sum=met.likeness.sum().cast("int64"), co_max=met.likeness.max()
    )
    return scores.mutate(co_rank=_place(scores, "co_sum", SHOPPER))


def _neighbours(engine: Engine, counters: Counters) -> Table:
    """Each item's likest items: `beside`, `item_id`, `likeness` in millionths."""
    lines = counters.lines
    lately = lines.filter(recent(lines, counters.now, TOGETHER_DAYS))
    lately = engine.keep(lately.select("session", ITEM))
    held = lately.group_by(ITEM).agg(held=lately.count())
    size = lately.group_by("session").agg(size=lately.count())
    size = size.filter(size["size"] <= TOGETHER_MOST_ITEMS)
    numbered = size.mutate(basket=ibis.row_number()).drop("size")
    frequent = held.filter(held.held >= TOGETHER_LEAST)
    baskets = lately.inner_join(frequent, ITEM).inner_join(numbered, "session")
    baskets = engine.keep(baskets.select("basket", ITEM, "held"))
    other = baskets.view()
    pairs = baskets.inner_join(
        other, [baskets.basket == other.basket, baskets[ITEM] != other[ITEM]]
    ).select(beside=baskets[ITEM], item_id=other[ITEM], one=baskets.held, two=other.held)
    likes = pairs.group_by(["beside", ITEM]).agg(
        both=pairs.count(), one=pairs.one.max(), two=pairs.two.max()
    )
    likes = likes.filter(likes.both >= TOGETHER_LEAST)
    likes = likes.mutate(
        likeness=(likes.both * MILLION / (likes.one * likes.two).cast("float64").sqrt())
        .round()
        .cast("int64")
    )
    likes = likes.mutate(_place=_place(likes, "likeness", "beside"))
    return likes.filter(likes._place < NEIGHBOURS).select("beside", ITEM, "likeness")
