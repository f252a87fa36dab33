"""Arrivals: which groups are new in a step, and what is formed of those that mature in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ibis
import pyarrow as pa

from pipelines.features.engines.base import Engine, Table, attach
from pipelines.features.moment import DAY, micros
from pipelines.features.state import storage
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run

LOOKBACK_STEPS: Final = 8
"""A group is formed once. Groups of so many steps are remembered; an older basket, or list, that
arrives only now is too late to tell apart from one that was formed already."""

LABELS: Final = pa.schema({columns.GROUP: pa.string()}).append(pa.field(columns.LABEL, pa.int8()))


@dataclass(frozen=True)
class Formed:
    """The groups of a step that mature in it."""

    rows: pa.Table
    """See `Layout.rows`."""
    groups: pa.Table
    """group_id, shopper_id, group_time, mature_at; sorted by group_id."""
    labels: pa.Table
    """See `LABELS`; a row an item that the basket or list held."""
    late: int
    open: int


def group_schema(layout: Layout) -> pa.Schema:
    """Of `Formed.groups`."""
    names = (columns.GROUP, columns.SHOPPER, columns.GROUP_TIME, columns.MATURE_AT)
    return pa.schema([layout.index.field(name) for name in names])


def formed_before(run: Run, engine: Engine, layout: Layout, step: Interval) -> Table:
    """Ids of the groups formed in the last steps, wherever they matured."""
    since = step.start - (LOOKBACK_STEPS - 1) * run.shop.grid.step
    ids = pa.schema({columns.GROUP: pa.string()})
    tables = [f"group_index/{layout.shop.surface.name}", storage.OPEN_GROUPS]
    parts = [storage.read_between(run, table, ids, since, step.start) for table in tables]
    return engine.load(pa.concat_tables(parts)).distinct()


def split_late(groups: Table, earlier: Table, step: Interval, days: int) -> tuple[Table, Table]:
    """Split groups into new ones and ids of late ones: formed before, or too old to know."""
    oldest = micros(step.start) - LOOKBACK_STEPS * days * DAY
    marked = attach(groups, earlier.mutate(_formed=ibis.literal(True)), columns.GROUP)
    late = marked._formed.fill_null(False) | (marked.group_time < oldest)
    return marked.filter(~late).drop("_formed"), marked.filter(late).select(columns.GROUP)


def context_time(group_time: Table, step: Interval) -> Table:
    """The time at which a group's features look at the shop: its own, or the step's start for a
    group that is older and came late, since what is known then is what the features use."""
    return group_time.clip(lower=micros(step.start))
