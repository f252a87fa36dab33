"""Items, periods and shoppers: the rows that stand at a step's end, from those before it."""

from __future__ import annotations

from functools import reduce

import ibis

from pipelines.features.engines.base import Table, Value, attach, attach_all
from pipelines.features.state.events import cents, change, joined_key, standing
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.declaration import Periods


def item_versions(changes: Table, layout: Layout) -> Table:
    """A step's changes of the item table, in the columns of `state/items` and `_op`."""
    item = layout.shop.item
    texts = {"item_category": item.category} | {
        f"item_{name}": column for name, column in item.attributes.items()
    }
    if item.available:
        had = changes[item.available]
        available = {"available": (had if had.type().is_boolean() else had > 0).fill_null(False)}
    else:
        available = {}
    return changes.select(
        item_id=changes[item.id],
        price_cents=cents(changes[item.price]) if item.price else ibis.null("int64"),
        listed_at=changes[columns.COMMITTED_AT],
        **{name: changes[column].cast("string") for name, column in texts.items()},
        **available,
        **change(changes),
    ).filter(lambda row: row.item_id.notnull())


def shopper_versions(changes: Table, layout: Layout) -> Table:
    """A step's changes of the shopper table, in the columns of `state/shoppers` and `_op`."""
    versions = changes.select(shopper_id=changes[layout.shop.shopper.id], **change(changes))
    return versions.filter(versions.shopper_id.notnull())


def period_versions(changes: Table, layout: Layout, place: int, periods: Periods) -> Table:
    """A step's changes of one table of periods, in the columns of `state/periods` and `_op`.

    Args:
        place: which of the declared `periods` it is; keeps their keys apart.
    """
    values = {name: _held(changes, periods, name) for name in layout.period_attributes}
    return changes.select(
        period_key=joined_key(changes, f"{place}:", layout.shop.tables[periods.table].key),
        item_id=changes[periods.item],
        valid_from=changes[periods.valid_from],
        valid_until=changes[periods.valid_until],
        **values,
        **change(changes),
    )


def _held(changes: Table, periods: Periods, name: str) -> Value:
    given = periods.attributes.get(name)
    if given is None:
        return ibis.null("float64")
    return changes[given].cast("float64") if isinstance(given, str) else ibis.literal(given)


def fold(before: Table, versions: Table, key: str) -> Table:
    """The rows that stand after a step: those before it, replaced by its changes.

    Args:
        before: rows that stood at the step's start.
        versions: the step's changes, with `_op`.
        key: the column that names a row.
    """
    names = [*before.columns, columns.OP]
    old = before.mutate(**{columns.OP: ibis.literal(columns.INSERT)})
    both = ibis.union(old.select(*names), versions.select(*names))
    return standing(both, key).drop(columns.OP)


def fold_items(before: Table, versions: Table) -> Table:
    """See `fold`; an item stays listed since the first of its versions that no delete follows."""
    gone = versions.filter(versions[columns.OP] == columns.DELETE)
    gone = gone.group_by(columns.ITEM).agg(_gone=gone[columns.POSITION].max())
    listed = attach(versions, gone, columns.ITEM)
    listed = listed.filter(listed["_gone"].isnull() | (listed[columns.POSITION] > listed["_gone"]))
    first = listed.group_by(columns.ITEM).agg(_first=listed.listed_at.min())
    stood = before.anti_join(gone, columns.ITEM).select(columns.ITEM, _since=before.listed_at)
    now = attach_all(
        fold(before, versions, columns.ITEM), [(first, (columns.ITEM,)), (stood, (columns.ITEM,))]
    )
    known = ibis.coalesce(now["_first"], now["_since"]), ibis.coalesce(now["_since"], now["_first"])
    return now.mutate(listed_at=ibis.least(*known)).drop("_first", "_since")


def segments(periods: Table, layout: Layout) -> Table:
    """Stretches of time in which an item's period attributes do not change.

    Overlapping periods give the largest value of each attribute. The stretches of an item do
    not overlap, so that a time finds one row at most.

    Returns:
        item_id, segment_start, segment_end and `period_<attribute>`.
    """
    edges = reduce(
        lambda one, other: one.union(other, distinct=True),
        [
            periods.select(columns.ITEM, segment_start=periods[name])
            for name in ("valid_from", "valid_until")
        ],
    )
    following = ibis.window(group_by=columns.ITEM, order_by="segment_start")
    pieces = edges.mutate(segment_end=edges.segment_start.lead().over(following))
    covering = pieces.inner_join(
        periods,
        [
            pieces[columns.ITEM] == periods[columns.ITEM],
            periods.valid_from <= pieces.segment_start,
            periods.valid_until > pieces.segment_start,
        ],
    )
    return covering.group_by([columns.ITEM, "segment_start", "segment_end"]).agg(
        **{f"period_{name}": covering[name].max() for name in layout.period_attributes}
    )
