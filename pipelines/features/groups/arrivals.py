"""Arrivals: which groups are new in a step, and what is formed of those that mature in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.features import counters
from pipelines.features.engines.base import Engine, Table, attach
from pipelines.features.moment import DAY, micros
from pipelines.features.state import storage
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run

LOOKBACK_STEPS: Final = 8
"""A basket, or list, that is older than so many steps when it arrives is too late: what was known
when it happened is no longer what stands. One that came before is not formed again, however much
later it gains a line."""

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
    still_open: pa.Table | None = None
    """Rows of groups whose window has not closed (`Layout.open_rows`), sorted by group and item;
    None where groups are formed at once."""


def group_schema(layout: Layout) -> pa.Schema:
    """Of `Formed.groups`."""
    names = (columns.GROUP, columns.SHOPPER, columns.GROUP_TIME, columns.MATURE_AT)
    return pa.schema([layout.index.field(name) for name in names])


def earlier_versions(
    run: Run,
    engine: Engine,
    table: str,
    schema: pa.Schema,
    step: Interval,
    key: str,
    ids: pa.Array[Any],
) -> Table:
    """What the steps of the window before a step hold of some groups, with the step of each.

    Reads a year of one column; only rows of these groups are held.

    Args:
        table: of versions in `schema`.
        key: the column that names a row's group.
        ids: the groups that the step's own changes touch.
    """
    since = step.start - timedelta(days=counters.WINDOW_DAYS)
    wanted = pc.field(key).isin(ids)
    keyed = schema.append(pa.field(columns.INTERVAL, pa.string()))
    return engine.load(storage.read_between(run, table, keyed, since, step.start, wanted))


def split_late(groups: Table, earlier: Table, step: Interval, days: int) -> tuple[Table, Table]:
    """Split groups into new ones and ids of late ones: formed before, or too old by now."""
    oldest = micros(step.start) - LOOKBACK_STEPS * days * DAY
    marked = attach(groups, earlier.mutate(_formed=ibis.literal(True)), columns.GROUP)
    late = marked._formed.fill_null(False) | (marked.group_time < oldest)
    return marked.filter(~late).drop("_formed"), marked.filter(late).select(columns.GROUP)


def context_time(group_time: Table, step: Interval) -> Table:
    """The time at which a group's features look at the shop: its own, or the step's start for a
    group that is older and came late, since what is known then is what the features use."""
    return group_time.clip(lower=micros(step.start))
