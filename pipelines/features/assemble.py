"""Feature rows: groups × candidates × everything known, through the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import ibis
from ibis.expr import operations

from pipelines.features import candidates, catalogue, counters, exposure
from pipelines.features.candidates import Proposals
from pipelines.features.catalogue import Feature
from pipelines.features.counters import Counters
from pipelines.features.engines.base import Engine, Table, Value, attach_all
from pipelines.features.exposure import Exposure
from pipelines.features.latent import latent_schedule
from pipelines.features.latent.als import Factors
from pipelines.features.moment import DAY, AsOf, micros
from pipelines.features.state import codes, entities, events, storage
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.models import vocabulary
from pipelines.shared.run import Run

PAIR = (columns.SHOPPER, columns.ITEM)
_OF_GROUP = ("group_time", "context_time")


@dataclass(frozen=True)
class Known:
    """What was known at a time: the only ground of features of that time."""

    counters: Counters
    segments: Table
    """See `entities.segments`."""
    exposure: Exposure | None
    """None where no impressions are logged."""
    factors: Factors | None
    """None where neither a feature nor a source asks for latent factors."""


def know(run: Run, engine: Engine, layout: Layout, as_of: AsOf) -> Known:
    """What was committed and folded before a time (law 3)."""
    since = as_of.ago(counters.WINDOW_DAYS)
    stood = events.standing_between(run, engine, layout, since, as_of.time)
    items = engine.load(storage.read(run, storage.ITEMS, layout.items, as_of.folded))
    described = codes.encode(items, engine, vocabulary.rows(run.lake, as_of.time), layout)
    periods = engine.load(storage.read(run, storage.PERIODS, layout.periods, as_of.folded))
    counted = counters.count(engine, events.lines(stood, layout.shop), described, layout, as_of)
    return Known(
        counted,
        engine.materialize(entities.segments(periods, layout)),
        exposure.count(run, engine, layout, counted),
        latent_schedule.known_factors(run, engine, layout, counted),
    )


def propose(
    engine: Engine, known: Known, layout: Layout, shoppers: Table, most: int | None
) -> Proposals:
    """The candidates of some shoppers: see `candidates.propose`."""
    count = known.counters
    now = count.as_of.micros
    step_end = now + layout.shop.interval.days * DAY
    on = known.segments.filter(
        (known.segments.segment_start < step_end) & (known.segments.segment_end > now)
    )
    near = (
        latent_schedule.nearest(engine, known.factors, shoppers, layout) if known.factors else None
    )
    return candidates.propose(
        engine,
        count,
        shoppers,
        near,
        on.select(columns.ITEM).distinct() if layout.shop.periods else None,
        layout.shop.features,
        most,
    )


def visits(shoppers: Table, moment: datetime) -> Table:
    """Shoppers as if each came at one moment: what `build` shows candidates to."""
    now = ibis.literal(micros(moment), "int64")
    return shoppers.mutate(group_time=now, context_time=now)


def build(
    engine: Engine, shown: Table, keys: tuple[str, ...], pairs: Table, known: Known,
    proposed: Proposals, layout: Layout,
) -> Table:  # fmt: skip
    """Features of candidates. What depends on shopper and item alone is computed once a pair,
    however many groups it is in.

    Args:
        shown: what `pairs` meet by `keys`: groups by shopper, or the lists' rows by shopper and
            item; with group_time and context_time.
        pairs: shopper × item, without repeats.

    Returns:
        The columns of `shown`, item_id, and one column for each feature of the catalogue.
    """
    described = _described(engine, pairs, known, proposed, layout)
    features = catalogue.catalogue(layout)
    moving = {f"period_{name}" for name in layout.period_attributes} | set(_OF_GROUP)
    needs = {feature.name: _fields(feature, described, moving) for feature in features}
    later = [feature for feature in features if needs[feature.name] & moving]
    raw = sorted(set().union(*(needs[feature.name] for feature in later)) - moving)
    settled = engine.materialize(
        described.select(
            *PAIR, *raw,
            **{f.name: _typed(f, f.expression(described)) for f in features if f not in later},
        )
    )  # fmt: skip
    met = _in_segment(settled.inner_join(shown, list(keys)), known.segments, layout)
    return met.select(
        *dict.fromkeys([*shown.columns, columns.ITEM]),
        **{f.name: _typed(f, f.expression(met)) if f in later else met[f.name] for f in features},
    )


def joined(
    engine: Engine, shown: Table, keys: tuple[str, ...], pairs: Table, known: Known,
    proposed: Proposals, layout: Layout,
) -> Table:  # fmt: skip
    """What `build` reads for the same arguments: candidates beside every counter."""
    met = _described(engine, pairs, known, proposed, layout).inner_join(shown, list(keys))
    return _in_segment(met, known.segments, layout)


def _fields(feature: Feature, described: Table, moving: set[str]) -> set[str]:
    """The columns that a feature reads."""
    types = dict(described.schema().items())
    types |= {name: "int64" if name in _OF_GROUP else "float64" for name in moving}
    expression = feature.expression(ibis.table(types, name="joined"))
    return {field.name for field in expression.op().find(operations.Field)}


def _typed(feature: Feature, value: Value) -> Value:
    return value.cast("int32" if feature.categorical else "float32")


def _described(
    engine: Engine, pairs: Table, known: Known, proposed: Proposals, layout: Layout
) -> Table:
    """Pairs with every counter of their shopper, item, category and attributes."""
    count = known.counters
    shown = known.exposure
    joined = attach_all(
        pairs,
        [
            (proposed.pairs, PAIR),
            (count.pairs, PAIR),
            *([(proposed.copurchase, PAIR)] if proposed.copurchase is not None else []),
            (count.items, (columns.ITEM,)),
            (count.shoppers, (columns.SHOPPER,)),
            (count.categories, (columns.SHOPPER, "item_category")),
            *(
                (affinity, (columns.SHOPPER, f"item_{name}"))
                for name, affinity in count.attributes.items()
            ),
            *([(shown.items, (columns.ITEM,)), (shown.pairs, PAIR)] if shown else []),
            *(
                [(latent_schedule.scores(engine, known.factors, pairs, layout), PAIR)]
                if known.factors
                else []
            ),
        ],
    )
    return joined.cross_join(count.totals)


def _in_segment(rows: Table, segments: Table, layout: Layout) -> Table:
    if not layout.shop.periods:
        return rows
    marked = segments.rename(_item=columns.ITEM)
    joined = rows.left_join(
        marked,
        [
            rows[columns.ITEM] == marked["_item"],
            marked.segment_start <= rows.context_time,
            marked.segment_end > rows.context_time,
        ],
    )
    return joined.drop("_item", "segment_start", "segment_end")
