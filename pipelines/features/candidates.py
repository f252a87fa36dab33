"""Candidates: which items are considered for a shopper, from where, and how many.

| source | proposes |
|---|---|
| repurchase | what the shopper bought in the window |
| popularity | what most shoppers bought in the last 28 days |
| category | the top items of the shopper's most frequent categories |
| copurchase | what is bought with the shopper's recent items |
| latent | the nearest items by latent factors (`latent/`) |
| promoted | what is promoted now, most bought first |
| novel | what is promoted now or was listed in the last 28 days, and nobody bought in the window, \
of the shopper's most frequent categories |

Only what stands in the catalogue is proposed, and to be served only what can be had: see
`Known.offered`.

Nothing speaks for an item that was never bought: up to `NOVEL_PLACES` of a shopper's places are
kept for novel ones, so that they can be shown at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Final

import ibis

from pipelines.features import copurchase
from pipelines.features.counters import MILLION, MONTH_DAYS, Counters
from pipelines.features.engines.base import Engine, Table, Value, attach, attach_all, place
from pipelines.features.known import Known
from pipelines.features.latent import latent_schedule
from pipelines.features.moment import DAY, micros
from pipelines.features.state.storage import Layout
from pipelines.shared.columns import ITEM, SHOPPER
from pipelines.shared.declaration import CandidateSource

SOURCES: Final[tuple[CandidateSource, ...]] = (
    "repurchase", "popularity", "category", "copurchase", "latent", "promoted", "novel",
)  # fmt: skip

POPULAR_ITEMS: Final = 300
PROMOTED_ITEMS: Final = 200
CATEGORIES: Final = 40
ITEMS_A_CATEGORY: Final = 10
COPURCHASED: Final = 200
NOVEL_A_CATEGORY: Final = 3
NOVEL_PLACES: Final = 5
"""Of 100 or more; of fewer, every twentieth."""


@dataclass(frozen=True)
class Proposals:
    """What was proposed for some shoppers."""

    pairs: Table
    """shopper × item: `sources` (a bit a source), `prior`, `prior_rank` (from 1)."""
    copurchase: Table | None
    """shopper × item: `co_sum`, `co_max`, in millionths, also beyond the proposals; None where
    neither a feature nor a source asks for it."""


def from_source(row: Table, name: CandidateSource) -> Value:
    """1 where a source proposed the row's item, else 0."""
    place = SOURCES.index(name)
    return (row.sources.fill_null(0) // (1 << place)) % 2


def propose(
    engine: Engine,
    known: Known,
    layout: Layout,
    shoppers: Table,
    most: int | None,
    offered: Table | None,
) -> Proposals:
    """Propose items, the best for each shopper by a simple prior.

    Args:
        shoppers: one column, the shoppers to propose for, without repeats; cold ones get what
            is popular.
        most: items a shopper; None for all that any source proposes.
        offered: only these items (`Known.offered`); None for any that was ever sold, which a
            logged list may have shown.
    """
    declared = layout.shop.features
    counters = known.counters
    if offered is not None:
        counters = replace(counters, items=counters.items.semi_join(offered, ITEM))
    latent = None
    if known.factors is not None:
        latent = latent_schedule.nearest(engine, known.factors, shoppers, layout)
    promoted = _promoted(known, layout)
    own = engine.materialize(counters.pairs.semi_join(shoppers, SHOPPER))
    favourites = _favourites(counters, shoppers)
    kept = NOVEL_PLACES if most is None else min(NOVEL_PLACES, most // 20)
    by_source = {
        "repurchase": own,
        "popularity": shoppers.cross_join(_most_bought(counters.items, POPULAR_ITEMS)),
        "category": favourites.inner_join(_category_tops(counters.items), "item_category"),
        "novel": _novel(counters, favourites, promoted, kept),
    }
    copurchased = None
    if "copurchase" in (*declared.sources, *declared.families):
        similar = engine.materialize(copurchase.neighbours(engine, counters))
        copurchased = engine.materialize(copurchase.scores(similar, own))
        by_source["copurchase"] = copurchased.filter(copurchased.co_rank < COPURCHASED)
    if latent is not None:
        by_source["latent"] = latent.semi_join(shoppers, SHOPPER)
    if promoted is not None:
        sold = counters.items.semi_join(promoted, ITEM)
        by_source["promoted"] = shoppers.cross_join(_most_bought(sold, PROMOTED_ITEMS))
    marked = [
        by_source[name].select(SHOPPER, ITEM, source=ibis.literal(1 << place, "int32"))
        for place, name in enumerate(SOURCES)
        if name in declared.sources and name in by_source
    ]
    stacked = reduce(ibis.union, marked)
    if offered is not None:
        stacked = stacked.semi_join(offered, ITEM)
    merged = stacked.group_by([SHOPPER, ITEM]).agg(sources=stacked.source.sum().cast("int32"))
    ranked = _ranked(merged, own, counters, latent)
    if most is not None:
        ranked = _cut(ranked, most)
    return Proposals(
        engine.materialize(ranked), None if copurchased is None else copurchased.drop("co_rank")
    )


def _promoted(known: Known, layout: Layout) -> Table | None:
    """The items with a period that holds within the step; None where the shop declares none."""
    if not layout.shop.periods:
        return None
    now, segments = known.counters.as_of.micros, known.segments
    end = now + layout.shop.interval.days * DAY
    on = segments.filter((segments.segment_start < end) & (segments.segment_end > now))
    return on.select(ITEM).distinct()


def _cut(ranked: Table, most: int) -> Table:
    """The best `most` proposals of each shopper, novel ones on the places kept for them."""
    best = ranked.filter((ranked.prior_rank <= most) | (from_source(ranked, "novel") == 1))
    novel = from_source(best, "novel")
    counted = best.mutate(_novel=novel, _taken=novel.sum().over(ibis.window(group_by=SHOPPER)))
    kept = (counted._novel == 1) | (counted.prior_rank <= most - counted._taken)
    return counted.filter(kept).drop("_novel", "_taken")


def _ranked(merged: Table, own: Table, counters: Counters, latent: Table | None) -> Table:
    """Order a shopper's proposals by a simple prior.

    prior = √(decayed orders of the item · (0.3 + its repeat rate)) + 2 p + ½ √(10 · share of the
    shopper's orders that hold its category · p) + 0.4 · latent score, where p is the share of the
    last 28 days' shoppers who bought the item. Chosen among some fifty such sums by candidate
    recall at 300 on the bundled year; neither a logistic regression nor a boosted model of all
    these numbers found a point more. The ranker sees it as a feature.
    """
    items = counters.items.select(
        ITEM, "item_category", "it_shoppers_28d", "it_repeaters", "it_shoppers"
    )
    rows = attach_all(
        merged,
        [
            (items, (ITEM,)),
            (own.select(SHOPPER, ITEM, "si_decayed_millionth"), (SHOPPER, ITEM)),
            (counters.shoppers.select(SHOPPER, "sh_orders_182d"), (SHOPPER,)),
            (
                counters.categories.select(SHOPPER, "item_category", "sc_orders"),
                (SHOPPER, "item_category"),
            ),
        ],
    ).cross_join(counters.totals.select("all_shoppers_28d"))
    near = 0.0
    if latent is not None:
        rows = attach(rows, latent, SHOPPER, ITEM)
        near = 0.4 * rows.latent_score.fill_null(0.0)
    popular = rows.it_shoppers_28d.fill_null(0) / rows.all_shoppers_28d.clip(lower=1)
    repeat_rate = (rows.it_repeaters / rows.it_shoppers).fill_null(0)
    own_orders = rows.si_decayed_millionth.fill_null(0) / MILLION * (0.3 + repeat_rate)
    of_category = 10 * (rows.sc_orders / rows.sh_orders_182d).fill_null(0) * popular
    scored = rows.select(
        SHOPPER,
        ITEM,
        "sources",
        prior=(own_orders.sqrt() + 2 * popular + 0.5 * of_category.sqrt() + near).round(9),
    )
    return scored.mutate(prior_rank=place(scored, "prior", SHOPPER) + 1)


def _most_bought(items: Table, most: int) -> Table:
    """Items that most shoppers bought in the last 28 days."""
    sold = items.filter(items.it_shoppers_28d > 0)
    return sold.order_by([ibis.desc(sold.it_shoppers_28d), ITEM]).limit(most).select(ITEM)


def _favourites(counters: Counters, shoppers: Table) -> Table:
    """shopper × category with `nth` from 0: where the shopper bought most often."""
    mine = counters.categories.semi_join(shoppers, SHOPPER)
    order = ibis.window(group_by=SHOPPER, order_by=[ibis.desc(mine.sc_orders), "item_category"])
    mine = mine.mutate(nth=ibis.row_number().over(order))
    return mine.filter(mine.nth < CATEGORIES).select(SHOPPER, "item_category", "nth")


def _category_tops(items: Table) -> Table:
    """The items of each category that most shoppers bought in the last 28 days."""
    sold = items.filter((items.it_shoppers_28d > 0) & items.item_category.notnull())
    tops = sold.mutate(_place=place(sold, "it_shoppers_28d", "item_category"))
    return tops.filter(tops._place < ITEMS_A_CATEGORY).select(ITEM, "item_category")


def _novel(counters: Counters, favourites: Table, promoted: Table | None, most: int) -> Table:
    """Items without a sale, of the categories in which the shopper bought most often.

    The promoted come before the newly listed, the shopper's first categories before the others.
    """
    unsold = counters.items.filter(
        counters.items.it_first.isnull() & counters.items.item_category.notnull()
    ).select(ITEM, "item_category", "listed_at")
    on = ibis.literal(False)
    if promoted is not None:
        unsold = attach(unsold, promoted.mutate(_on=ibis.literal(True)), ITEM)
        on = unsold["_on"].fill_null(False)
    new = unsold.listed_at >= micros(counters.as_of.ago(MONTH_DAYS))
    unsold = unsold.mutate(on=on.cast("int8")).filter(on | new)
    order = [ibis.desc("on"), ibis.desc("listed_at"), ITEM]
    by_category = ibis.window(group_by="item_category", order_by=order)
    tops = unsold.mutate(place=ibis.row_number().over(by_category))
    near = favourites.inner_join(tops.filter(tops.place < NOVEL_A_CATEGORY), "item_category")
    by_shopper = ibis.window(group_by=SHOPPER, order_by=[ibis.desc("on"), "nth", "place"])
    near = near.mutate(rank=ibis.row_number().over(by_shopper))
    return near.filter(near["rank"] < most).select(SHOPPER, ITEM)
