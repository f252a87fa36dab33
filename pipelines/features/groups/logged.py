"""Groups of a surface that logs what it shows: one a list, labelled when its window has closed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import ibis
import pyarrow as pa
import pyarrow.compute as pc
from ibis.expr.datatypes import DataType

from pipelines.features.engines.base import Engine, Table
from pipelines.features.groups.generated import context_time, split_late
from pipelines.features.state import events
from pipelines.features.state.events import DAY, joined_key, micros, standing
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.declaration import Impressions
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run


def declared(layout: Layout) -> Impressions:
    """The surface's impressions.

    Raises:
        ValueError: the surface logs none.
    """
    shown = layout.shop.surface.impressions
    if shown is None:
        raise ValueError(f"surface {layout.shop.surface.name} logs no impressions")
    return shown


def arrived(changes: Table, before: Table, layout: Layout, step: Interval) -> tuple[Table, Table]:
    """The lists that a step's changes of the impressions table bring, net.

    Args:
        changes: the step's changes of the impressions table.
        before: ids of groups formed earlier.

    Returns:
        A row a shown item: group_id, shopper_id, item_id, shown_position, group_time,
        context_time, window_end, known_at; and the ids of lists that came too late.
    """
    rows = whole(versions(changes, layout))
    lists = rows.group_by(columns.GROUP).agg(
        shopper_id=rows[columns.SHOPPER].min(),
        group_time=rows.group_time.min(),
        known_at=rows[columns.COMMITTED_AT].max(),
    )
    new, late = split_late(lists, before, step, layout.shop.interval.days)
    window = int(layout.shop.surface.attribution_days * DAY)
    timed = new.mutate(
        context_time=context_time(new.group_time, step), window_end=new.group_time + window
    )
    items = rows.group_by([columns.GROUP, columns.ITEM]).agg(
        shown_position=rows.shown_position.min()
    )
    return items.inner_join(timed, columns.GROUP), late


def versions(changes: Table, layout: Layout) -> Table:
    """A step's changes of the impressions table in the columns of `state/shown`."""
    shown = declared(layout)
    position = changes[shown.position].cast("int32") if shown.position else ibis.null("int32")
    return changes.select(
        shown_key=joined_key(changes, "", layout.shop.tables[shown.table].key),
        group_id=changes[shown.group].cast("string"),
        shopper_id=changes[shown.shopper].cast(DataType.from_pyarrow(layout.shopper)),
        item_id=changes[shown.item].cast(DataType.from_pyarrow(layout.item)),
        group_time=changes[shown.time],
        shown_position=position,
        **{name: changes[name] for name in (columns.OP, columns.COMMITTED_AT, columns.POSITION)},
    )


def whole(shown: Table) -> Table:
    """The last version of each showing that says who saw what in which list, and when."""
    stood = standing(shown, "shown_key")
    return stood.filter(
        stood.group_id.notnull()
        & stood.shopper_id.notnull()
        & stood.item_id.notnull()
        & stood.group_time.notnull()
    )


def labelled(run: Run, engine: Engine, layout: Layout, step: Interval, rows: pa.Table) -> pa.Table:
    """Give rows of closed windows their labels, from the events known at the step's end.

    The label is the grade of the strongest event of the shopper on the item in
    `[group_time, window_end)`, 0 without one.

    Args:
        rows: see `Layout.open_rows`; every window has closed.
    """
    if rows.num_rows == 0:
        return rows
    first: datetime = pc.min(rows[columns.GROUP_TIME]).as_py().astimezone(UTC)
    seen = events.known(run, engine, layout, first - timedelta(seconds=1), step.end)
    shown = engine.load(rows.drop_columns([columns.LABEL]))
    done = seen.select("grade", "event_time", _shopper=columns.SHOPPER, _item=columns.ITEM)
    met = shown.inner_join(
        done,
        [
            shown[columns.SHOPPER] == done["_shopper"],
            shown[columns.ITEM] == done["_item"],
            done.event_time >= shown.group_time,
            done.event_time < shown.window_end,
        ],
    )
    keys = (columns.GROUP, columns.ITEM)
    strongest = met.group_by(list(keys)).agg(label=met.grade.max().cast("int8"))
    marked = strongest.rename(**{f"_{key}": key for key in keys})
    joined = shown.left_join(marked, [shown[key] == marked[f"_{key}"] for key in keys])
    with_label = joined.mutate(label=joined.label.fill_null(0))
    return engine.arrow(with_label, rows.schema, *keys)


def part(carried: pa.Table, fresh: pa.Table, step: Interval) -> tuple[pa.Table, pa.Table]:
    """Part rows into those whose window has closed by the step's end, and those still open."""
    rows = pa.concat_tables([carried, fresh]).sort_by(
        [(columns.GROUP, "ascending"), (columns.ITEM, "ascending")]
    )
    end = pa.scalar(step.end, pa.timestamp("us", tz="UTC"))
    closed = pc.less_equal(rows["window_end"], end)
    return rows.filter(closed), rows.filter(pc.invert(closed))


def mature_groups(engine: Engine, rows: pa.Table, step: Interval) -> Table:
    """The groups of labelled rows, with the time at which their labels were complete."""
    loaded = engine.load(
        rows.select([columns.GROUP, columns.SHOPPER, columns.GROUP_TIME, "window_end", "known_at"])
    )
    found = loaded.distinct()
    return found.mutate(
        mature_at=ibis.greatest(found.window_end, found.known_at, micros(step.start))
    )
