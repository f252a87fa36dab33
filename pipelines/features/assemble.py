"""Feature rows: groups × candidates × everything known, through the catalogue."""

from __future__ import annotations

from datetime import datetime

import ibis
import pyarrow as pa
from ibis.expr import operations

from pipelines.features import catalogue
from pipelines.features.candidates import Proposals
from pipelines.features.catalogue import Feature
from pipelines.features.engines.base import Engine, Table, Value, attach, attach_all
from pipelines.features.known import Known
from pipelines.features.latent import latent_schedule
from pipelines.features.moment import DAY, micros
from pipelines.features.state.storage import Layout
from pipelines.shared import columns

PAIR = (columns.SHOPPER, columns.ITEM)
_OF_GROUP = ("group_time", "context_time")


def visits(shoppers: Table, moment: datetime) -> Table:
    """Shoppers as if each came at one moment: what `build` shows candidates to."""
    now = ibis.literal(micros(moment), "int64")
    return shoppers.mutate(group_time=now, context_time=now)


def usual_visits(
    engine: Engine, shoppers: Table, lines: Table, after: datetime, days: int
) -> Table:
    """Shoppers as if each came in the next days at the weekday and hour at which they mostly did.

    A group in training has the time of its basket; a list that is served for a whole step is
    scored for the visit to expect. A shopper without a past comes when most do.

    Args:
        lines: see `Counters.lines`.
        after: when the days begin.
        days: fewer than seven have no usual weekday: the visit is then on the first.
    """
    sessions = lines.group_by([columns.SHOPPER, "session"]).agg(time=lines.time.min())
    came = sessions.select(
        columns.SHOPPER,
        weekday=(sessions.time // DAY + 3) % 7,
        hour=sessions.time // (DAY // 24) % 24,
    )
    usual = shoppers
    for part in ("weekday", "hour"):
        counted = came.group_by([columns.SHOPPER, part]).agg(n=came.count())
        most = [ibis.desc("n"), part]
        by_shopper = ibis.window(group_by=columns.SHOPPER, order_by=most)
        own = counted.mutate(_place=ibis.row_number().over(by_shopper))
        own = own.filter((own._place == 0) & own[columns.SHOPPER].notnull())
        of_all = came.group_by(part).agg(n=came.count()).order_by(most).limit(1)
        first = engine.arrow(of_all, pa.schema({part: pa.int64()}))[part].to_pylist()
        usual = attach(usual, own.select(columns.SHOPPER, part), columns.SHOPPER)
        usual = usual.mutate(**{part: usual[part].fill_null(next(iter(first), 0))})
    ahead = (usual.weekday - after.weekday() + 7) % 7
    day = ibis.ifelse(ahead < days, ahead, 0)
    moment = (micros(after) + day * DAY + usual.hour * (DAY // 24)).cast("int64")
    return usual.mutate(group_time=moment, context_time=moment).drop("weekday", "hour")


def build(
    engine: Engine, shown: Table, pairs: Table, known: Known, proposed: Proposals, layout: Layout
) -> Table:
    """Features of candidates. What depends on shopper and item alone is computed once a pair,
    however many groups it is in.

    Args:
        shown: with group_time and context_time: groups, whose shopper's pairs are all candidates,
            or rows of shopper and item.
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
    met = _in_segment(settled.inner_join(shown, _keys(shown)), known.segments, layout)
    return met.select(
        *dict.fromkeys([*shown.columns, columns.ITEM]),
        **{f.name: _typed(f, f.expression(met)) if f in later else met[f.name] for f in features},
    )


def joined(
    engine: Engine, shown: Table, pairs: Table, known: Known, proposed: Proposals, layout: Layout
) -> Table:
    """What `build` reads for the same arguments: candidates beside every counter."""
    met = _described(engine, pairs, known, proposed, layout).inner_join(shown, _keys(shown))
    return _in_segment(met, known.segments, layout)


def _keys(shown: Table) -> list[str]:
    return [name for name in PAIR if name in shown.columns]


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
