"""Events: from a step's changes to normalised versions, and from versions to what stands."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import reduce
from typing import Final

import ibis
from ibis.expr.datatypes import DataType

from pipelines.features.engines.base import Engine, Table, Value
from pipelines.features.moment import DAY, micros
from pipelines.features.state.storage import EVENTS, Layout, read_between
from pipelines.shared import columns
from pipelines.shared.declaration import Event, Shop
from pipelines.shared.run import Run

TOLERANCE: Final = DAY
"""An event that claims to have happened longer than this after its commit never counts."""


LARGEST_AMOUNT: Final = 1e12
"""An amount beyond it is no price, and sums of such would not fit: it counts as unknown."""


def cents(amount: Value) -> Value:
    """Hundredths as int64, so that sums do not depend on their order.

    Null where the amount is infinite, no number, or beyond `LARGEST_AMOUNT`.
    """
    known = amount.cast("float64").abs() <= LARGEST_AMOUNT
    return (ibis.ifelse(known, amount, ibis.null(amount.type())) * 100).round().cast("int64")


def change(changes: Table) -> dict[str, Value]:
    """What a version keeps of its change: operation, commit time and position."""
    return {name: changes[name] for name in (columns.OP, columns.COMMITTED_AT, columns.POSITION)}


def joined_key(changes: Table, prefix: str, names: list[str]) -> Value:
    """A text that is equal exactly where the key columns are equal."""
    parts = [
        changes[name].replace("\\", "\\\\").replace("|", "\\|")
        if changes[name].type().is_string()
        else changes[name].cast("string")
        for name in names
    ]
    return ibis.literal(prefix) + reduce(lambda text, part: text + "|" + part, parts)


def normalise(changes: Table, layout: Layout, event: Event) -> Table:
    """A step's changes of one table as versions of one kind of event (`state/events`).

    A changed row that is of another kind is kept as a delete: it may have been of this one.
    """
    shop = layout.shop
    matches = reduce(
        lambda so_far, want: so_far & (changes[want[0]] == want[1]).fill_null(False),
        event.where.items(),
        ibis.literal(True),
    )
    operation = changes[columns.OP]
    gone = (operation == columns.DELETE) | ~matches
    optional = {
        "group_key": changes[event.group].cast("string") if event.group else ibis.null("string"),
        "quantity": changes[event.quantity].cast("float64")
        if event.quantity
        else ibis.null("float64"),
        "price_cents": cents(changes[event.price]) if event.price else ibis.null("int64"),
    }
    types = layout.events
    versions = changes.filter(matches | (operation != columns.INSERT)).select(
        event_key=joined_key(changes, f"{event.kind}:", shop.tables[event.table].key),
        kind=ibis.literal(event.kind),
        grade=ibis.literal(event.grade, "int32"),
        shopper_id=changes[event.shopper].cast(DataType.from_pyarrow(layout.shopper)),
        item_id=changes[event.item].cast(DataType.from_pyarrow(layout.item)),
        event_time=changes[event.time],
        **optional,
        **change(changes) | {columns.OP: ibis.ifelse(gone, columns.DELETE, operation)},
    )
    return versions.select(*types.names)


def standing(versions: Table, key: str = "event_key", *within: str) -> Table:
    """The last version of each key, less the deleted.

    Args:
        within: columns in each value of which what stood is wanted, say in each step.
    """
    by_position = ibis.window(
        group_by=[key, *within], order_by=ibis.desc(versions[columns.POSITION])
    )
    last = versions.mutate(_age=ibis.row_number().over(by_position)).filter(
        lambda row: (row._age == 0) & (row[columns.OP] != columns.DELETE)
    )
    return last.drop("_age")


def plausible(events: Table) -> Table:
    """Events on an item that do not claim to have happened long after they were committed."""
    return events.filter(
        events[columns.ITEM].notnull()
        & events.event_time.notnull()
        & (events.event_time <= events[columns.COMMITTED_AT] + TOLERANCE)
    )


def standing_between(
    run: Run, engine: Engine, layout: Layout, since: datetime, until: datetime
) -> Table:
    """Standing events of `[since, until)` by event time, as known at `until`.

    Exact although older partitions are not read: an event is never committed before it
    happened, up to `TOLERANCE`, so versions of the window lie in the partitions read.
    """
    slack = timedelta(microseconds=TOLERANCE)
    versions = read_between(run, EVENTS, layout.events, since - slack, until)
    events = plausible(standing(engine.load(versions)))
    inside = (events.event_time >= micros(since)) & (events.event_time < micros(until))
    return events.filter(inside)


def lines(events: Table, shop: Shop) -> Table:
    """One row a shopper, session and item: what the counters count.

    A session is the event's group or, where the shop has none, the shopper's day.
    """
    day = (events.event_time // DAY).cast("string")
    session = ibis.coalesce(
        events.group_key, events[columns.SHOPPER].cast("string") + "|" + day, day
    )
    strongest = max(event.grade for event in shop.events)
    return (
        events.mutate(session=session)
        .group_by([columns.SHOPPER, "session", columns.ITEM])
        .agg(
            time=lambda row: row.event_time.min(),
            weight=lambda row: (row.grade.max() * 1000 / strongest).round().cast("int64"),
            quantity_milli=lambda row: (
                (row.quantity.clip(0, 1e9) * 1000).round().cast("int64").sum()
            ),
            price_cents=lambda row: row.price_cents.sum().cast("int64"),
        )
    )
