"""Feature rows: groups × candidates × everything known, through the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa

from pipelines.features import catalogue, codes, counters, events, snapshots, storage
from pipelines.features.candidates import Proposals
from pipelines.features.counters import Counters
from pipelines.features.engine import Engine, Table, attach_all
from pipelines.features.storage import Layout
from pipelines.shared import columns, vocabulary
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run


@dataclass(frozen=True)
class Known:
    """What was known at a time: the only ground of features of that time."""

    counters: Counters
    segments: Table


def as_of(
    run: Run, engine: Engine, layout: Layout, until: datetime, folded: Interval | None
) -> Known:
    """What was committed and folded before a time (law 3).

    Args:
        folded: the last step folded before `until`, whose snapshots stand.
    """
    since = until - timedelta(days=counters.WINDOW_DAYS)
    stood = events.known(run, engine, layout, since, until)
    items = snapshot(run, storage.ITEMS, layout.items, folded)
    described = codes.encode(engine.load(items), engine, vocabulary.rows(run.lake, until), layout)
    periods = engine.load(snapshot(run, storage.PERIODS, layout.periods, folded))
    lines = events.lines(stood, layout.shop)
    return Known(
        counters.count(engine, lines, described, layout, events.micros(until)),
        engine.keep(snapshots.segments(periods, layout)),
    )


def snapshot(run: Run, table: str, schema: pa.Schema, folded: Interval | None) -> pa.Table:
    """The rows of a snapshot that stood when `folded` ended."""
    key = folded.key if folded else None
    return storage.read(run, table, schema, lambda each: each == key)


def build(candidates: Table, known: Known, proposed: Proposals, layout: Layout) -> Table:
    """Features of candidates.

    Args:
        candidates: shopper_id, item_id, group_time, context_time and any other columns, one row
            a candidate of a group.

    Returns:
        The columns of `candidates` and one for each feature of the catalogue.
    """
    count = known.counters
    pair = (columns.SHOPPER, columns.ITEM)
    wide = attach_all(
        candidates,
        [
            (proposed.pairs, pair),
            (count.pairs, pair),
            (proposed.together, pair),
            (count.items, (columns.ITEM,)),
            (count.shoppers, (columns.SHOPPER,)),
            (count.categories, (columns.SHOPPER, "item_category")),
            *(
                (affinity, (columns.SHOPPER, f"item_{name}"))
                for name, affinity in count.attributes.items()
            ),
        ],
    )
    wide = _in_segment(wide, known.segments).cross_join(count.totals)
    features = {
        feature.name: feature.expression(wide).cast("int32" if feature.categorical else "float32")
        for feature in catalogue.catalogue(layout)
    }
    return wide.select(*candidates.columns, **features)


def _in_segment(wide: Table, segments: Table) -> Table:
    marked = segments.rename(_item=columns.ITEM)
    joined = wide.left_join(
        marked,
        [
            wide[columns.ITEM] == marked["_item"],
            marked.segment_start <= wide.context_time,
            marked.segment_end > wide.context_time,
        ],
    )
    return joined.drop("_item", "segment_start", "segment_end")
