"""Groups of a surface that logs what it shows: one a list, labelled when its window has closed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.features import assemble, candidates, catalogue
from pipelines.features.engines.base import Engine, Table, attach, conform
from pipelines.features.groups import arrivals
from pipelines.features.groups.arrivals import Formed
from pipelines.features.known import Known
from pipelines.features.moment import DAY, micros
from pipelines.features.state import events, showings, storage
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run

_KEYS = (columns.GROUP, columns.ITEM)


def form(run: Run, engine: Engine, layout: Layout, step: Interval, known: Known) -> Formed:
    """Open a group for each list that arrived in the step; form those whose window closes.

    Args:
        known: what was known when the step began.
    """
    own = storage.read(run, storage.SHOWN, layout.shown, step)
    before = arrivals.earlier_versions(
        run,
        engine,
        storage.SHOWN,
        layout.shown,
        step,
        columns.GROUP,
        own[columns.GROUP].combine_chunks(),
    )
    earlier = showings.standing(before, columns.INTERVAL).select(columns.GROUP).distinct()
    arrived, late = _arrived(engine.load(own), earlier, layout, step)
    shown = engine.materialize(arrived)
    shoppers = shown.select(columns.SHOPPER).distinct()
    proposed = candidates.propose(engine, known, layout, shoppers, None, None)
    pairs = engine.materialize(shown.select(*assemble.PAIR).distinct())
    built = assemble.build(engine, shown, pairs, known, proposed, layout)
    built = built.mutate(label=ibis.literal(0, "int8"))
    types = catalogue.types(layout)
    schema = layout.open_rows(types)
    fresh = engine.arrow(built, schema, *_KEYS)
    carried = storage.read(run, storage.OPEN_GROUPS, schema, known.counters.as_of.folded)
    closed, still_open = _split_closed(pa.concat_tables([carried, fresh]), step)
    labelled = _labelled(run, engine, layout, step, closed)
    mature = _mature_groups(engine, labelled, step)
    return Formed(
        conform(labelled, layout.rows(types)),
        engine.arrow(mature, arrivals.group_schema(layout), columns.GROUP),
        conform(labelled, arrivals.LABELS),
        engine.count(late),
        still_open,
    )


def _arrived(
    versions: Table, earlier: Table, layout: Layout, step: Interval
) -> tuple[Table, Table]:
    """The lists that a step's changes of the impressions table bring, net.

    Args:
        versions: the step's versions of showings (`state/shown`).
        earlier: ids of groups formed earlier.

    Returns:
        A row a shown item: group_id, shopper_id, item_id, shown_position, group_time,
        context_time, window_end, known_at; and the ids of lists that came too late.
    """
    rows = showings.standing(versions)
    lists = rows.group_by(columns.GROUP).agg(
        shopper_id=rows[columns.SHOPPER].min(),
        group_time=rows.group_time.min(),
        known_at=rows[columns.COMMITTED_AT].max(),
    )
    new, late = arrivals.split_late(lists, earlier, step, layout.shop.interval.days)
    window = int(layout.shop.surface.attribution_days * DAY)
    timed = new.mutate(
        context_time=arrivals.context_time(new.group_time, step),
        window_end=new.group_time + window,
    )
    items = rows.group_by(list(_KEYS)).agg(shown_position=rows.shown_position.min())
    return items.inner_join(timed, columns.GROUP), late


def _split_closed(rows: pa.Table, step: Interval) -> tuple[pa.Table, pa.Table]:
    """Split rows into those whose window has closed by the step's end, and those still open."""
    rows = rows.sort_by([(key, "ascending") for key in _KEYS])
    end = pa.scalar(step.end, pa.timestamp("us", tz="UTC"))
    closed = pc.less_equal(rows["window_end"], end)
    return rows.filter(closed), rows.filter(pc.invert(closed))


def _labelled(run: Run, engine: Engine, layout: Layout, step: Interval, rows: pa.Table) -> pa.Table:
    """Give rows of closed windows their labels, from the events known at the step's end.

    The label is the grade of the strongest event of the shopper on the item in
    `[group_time, window_end)`, 0 without one.

    Args:
        rows: see `Layout.open_rows`; every window has closed.
    """
    if rows.num_rows == 0:
        return rows
    first: datetime = pc.min(rows[columns.GROUP_TIME]).as_py().astimezone(UTC)
    since = first - timedelta(seconds=1)
    seen = events.standing_between(run, engine, layout, since, step.end)
    shown = engine.load(rows.drop_columns([columns.LABEL]))
    graded = seen.select("grade", "event_time", _shopper=columns.SHOPPER, _item=columns.ITEM)
    met = shown.inner_join(
        graded,
        [
            shown[columns.SHOPPER] == graded["_shopper"],
            shown[columns.ITEM] == graded["_item"],
            graded.event_time >= shown.group_time,
            graded.event_time < shown.window_end,
        ],
    )
    strongest = met.group_by(list(_KEYS)).agg(label=met.grade.max().cast("int8"))
    joined = attach(shown, strongest, *_KEYS)
    return engine.arrow(joined.mutate(label=joined.label.fill_null(0)), rows.schema, *_KEYS)


def _mature_groups(engine: Engine, rows: pa.Table, step: Interval) -> Table:
    """The groups of labelled rows, with the time at which their labels were complete."""
    names = [columns.GROUP, columns.SHOPPER, columns.GROUP_TIME, "window_end", "known_at"]
    groups = engine.load(rows.select(names)).distinct()
    return groups.mutate(
        mature_at=ibis.greatest(groups.window_end, groups.known_at, micros(step.start))
    )
