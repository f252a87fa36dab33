"""Latent factors in the loop: when they are fitted, when only updated, and what reads them.

A step's factors are those known when it begins, from the pairs of the window: fitted again at every
`REFIT_STEPS`th step of the shop's grid, and otherwise the last ones with the shoppers and items
of the last interval solved again. They are models (law 4): stored by step, and the same in a rerun.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from pipelines.features.counters import MILLION, Counters, recent
from pipelines.features.engines.base import Engine, Table
from pipelines.features.latent import als
from pipelines.features.latent.als import Factors, Touched
from pipelines.features.state import storage
from pipelines.features.state.step_writer import StepWriter
from pipelines.features.state.storage import Layout
from pipelines.shared.columns import ITEM, SHOPPER
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run

REFIT_STEPS: Final = 4
NEAREST: Final = 120
"""Items that the factors propose to a shopper."""
FAINTEST: Final = 50_000
"""Millionths of an order below which a pair is left out: half a year after one order."""


def known_factors(run: Run, engine: Engine, layout: Layout, counters: Counters) -> Factors | None:
    """The factors known at the counters' time; None where the shop uses none.

    Those of the last step folded before it are continued.
    """
    declared = layout.shop.features
    if "latent" not in declared.families and "latent" not in declared.sources:
        return None
    as_of = counters.as_of
    before = _stored(run, layout, as_of.folded)
    number = (as_of.time - layout.shop.grid.anchor) // layout.shop.grid.step
    if before is None or number % REFIT_STEPS == 0:
        return als.fit(*_strengths(engine, layout, counters.pairs))
    lately = counters.lines.filter(
        recent(counters.lines, as_of, layout.shop.interval.days) & counters.lines[SHOPPER].notnull()
    )
    shoppers = engine.materialize(lately.select(SHOPPER).distinct())
    items = engine.materialize(lately.select(ITEM).distinct())
    return als.update(
        before,
        _touched(engine, layout, counters.pairs.semi_join(shoppers, SHOPPER), shoppers, SHOPPER),
        _touched(engine, layout, counters.pairs.semi_join(items, ITEM), items, ITEM),
    )


def store(state: StepWriter, factors: Factors) -> None:
    """Write the step's factors."""
    shoppers, items = als.to_tables(factors)
    state.write(storage.SHOPPER_FACTORS, shoppers, SHOPPER)
    state.write(storage.ITEM_FACTORS, items, ITEM)


def nearest(engine: Engine, factors: Factors, shoppers: Table, layout: Layout) -> Table:
    """shopper × item with `latent_score`: the items nearest to each shopper."""
    ids = engine.arrow(shoppers, pa.schema({SHOPPER: layout.shopper}), SHOPPER)[SHOPPER]
    return engine.load(als.top(factors, ids.combine_chunks(), NEAREST))


def scores(engine: Engine, factors: Factors, pairs: Table, layout: Layout) -> Table:
    """Pairs with `latent_score`, null where the shopper or the item is not known."""
    schema = pa.schema({SHOPPER: layout.shopper, ITEM: layout.item})
    rows = engine.arrow(pairs, schema)
    score = als.score(factors, rows[SHOPPER], rows[ITEM])
    return engine.load(rows.append_column(als.LATENT_SCORE, score))


def _stored(run: Run, layout: Layout, folded: Interval | None) -> Factors | None:
    def read(table: str, name: str, kind: pa.DataType) -> pa.Table:
        schema = pa.schema([(name, kind), *((each, pa.float32()) for each in als.NAMES)])
        return storage.read(run, table, schema, folded)

    shoppers = read(storage.SHOPPER_FACTORS, SHOPPER, layout.shopper)
    items = read(storage.ITEM_FACTORS, ITEM, layout.item)
    return als.from_tables(shoppers, items) if items.num_rows else None


def _touched(engine: Engine, layout: Layout, pairs: Table, ids: Table, name: str) -> Touched:
    kind = layout.shopper if name == SHOPPER else layout.item
    named = engine.arrow(ids, pa.schema({name: kind}), name)[name]
    return Touched(named.combine_chunks(), *_strengths(engine, layout, pairs))


def _strengths(
    engine: Engine, layout: Layout, pairs: Table
) -> tuple[als.Array, als.Array, als.Strengths]:
    schema = pa.schema(
        {SHOPPER: layout.shopper, ITEM: layout.item, "si_decayed_millionth": pa.int64()}
    )
    rows = engine.arrow(pairs.filter(pairs.si_decayed_millionth >= FAINTEST), schema)
    strengths = rows["si_decayed_millionth"].to_numpy() / MILLION
    return rows[SHOPPER].combine_chunks(), rows[ITEM].combine_chunks(), strengths
