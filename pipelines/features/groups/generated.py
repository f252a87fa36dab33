"""Groups of a surface whose candidates are generated: one a basket that arrived in the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ibis
import pyarrow as pa

from pipelines.features.engines.base import Engine, Table, attach
from pipelines.features.state import storage
from pipelines.features.state.events import DAY, micros, plausible, standing
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run

LOOKBACK_STEPS: Final = 8
"""A group is formed once. Groups of so many steps are remembered; an older basket, or list, that
arrives only now is too late to tell apart from one that was formed already."""


@dataclass(frozen=True)
class Arrived:
    """Groups that arrived in a step."""

    groups: Table
    """group_id, shopper_id, group_time, context_time, mature_at; a row a group."""
    labels: Table
    """group_id, item_id, label; a row an item that the group's events touched."""
    late: Table
    """group_id of those that were formed before, or are too old."""


def formed_before(run: Run, engine: Engine, layout: Layout, step: Interval) -> Table:
    """Ids of the groups formed in the last steps, wherever they matured."""
    since = step.start - (LOOKBACK_STEPS - 1) * run.shop.grid.step
    ids = pa.schema({columns.GROUP: pa.string()})
    tables = [f"group_index/{layout.shop.surface.name}", storage.OPEN_GROUPS]
    found = [storage.read_between(run, table, ids, since, step.start) for table in tables]
    return engine.load(pa.concat_tables(found)).distinct()


def context_time(group_time: Table, step: Interval) -> Table:
    """The time at which a group's features look at the shop: its own, or the step's start for a
    group that is older and came late, since what is known then is what the features use."""
    return group_time.clip(lower=micros(step.start))


def split_late(groups: Table, before: Table, step: Interval, days: int) -> tuple[Table, Table]:
    """Part groups into new ones and late ones (formed before, or too old to know)."""
    oldest = micros(step.start) - LOOKBACK_STEPS * days * DAY
    marked = attach(groups, before.mutate(_formed=ibis.literal(True)), columns.GROUP)
    late = marked._formed.fill_null(False) | (marked.group_time < oldest)
    return marked.filter(~late).drop("_formed"), marked.filter(late).select(columns.GROUP)


def arrived(versions: Table, before: Table, layout: Layout, step: Interval) -> Arrived:
    """The baskets that a step's changes bring, net: one that was cancelled within it is none.

    Args:
        versions: the step's event versions (`state/events`).
        before: ids of groups formed earlier.
    """
    surface = layout.shop.surface
    events = plausible(standing(versions))
    events = events.filter(events.group_key.notnull() & events[columns.SHOPPER].notnull())
    anchors = events.filter(events.kind == surface.groups_of)
    found = anchors.group_by(group_id=anchors.group_key).agg(
        shopper_id=anchors[columns.SHOPPER].min(), group_time=anchors.event_time.min()
    )
    new, late = split_late(found, before, step, layout.shop.interval.days)
    of_new = events.rename(group_id="group_key").semi_join(new, columns.GROUP)
    labels = of_new.group_by([columns.GROUP, columns.ITEM]).agg(
        label=of_new.grade.max().cast("int8")
    )
    committed = of_new.group_by(columns.GROUP).agg(committed=of_new[columns.COMMITTED_AT].max())
    window = int(surface.attribution_days * DAY)
    dated = attach(new, committed, columns.GROUP)
    groups = dated.mutate(
        context_time=context_time(dated.group_time, step),
        mature_at=ibis.greatest(dated.committed, dated.group_time + window, micros(step.start)),
    )
    return Arrived(groups.drop("committed"), labels, late)
