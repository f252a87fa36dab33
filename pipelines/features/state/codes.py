"""Appending to the vocabulary (law 10)."""

from __future__ import annotations

from functools import reduce
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.features.engines.base import Engine, Table, attach, attach_all
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.errors import CorruptPartition
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import Lake
from pipelines.shared.models import vocabulary


def features(layout: Layout) -> list[str]:
    """The categorical features of a shop."""
    return ["item_category", *(f"item_{name}" for name in layout.shop.item.attributes)]


def append(engine: Engine, lake: Lake, step: Interval, versions: Table, layout: Layout) -> pa.Table:
    """The codes that a step adds; a code once given, by this step or any other, stays.

    Values get the next codes in the order of their first appearance: commit time, position,
    feature and value; so the codes do not depend on how the log was cut.

    Args:
        versions: the step's changes of items, with `_op`.
    """
    stored = _stored(lake, step)
    keys = stored[columns.INTERVAL]
    own = stored.filter(pc.equal(keys, pa.scalar(step.key))).select(vocabulary.SCHEMA.names)
    earlier = stored.filter(pc.less(keys, pa.scalar(step.key)))
    later = stored.filter(pc.greater(keys, pa.scalar(step.key)))
    seen = _first_seen(versions.filter(versions[columns.OP] != columns.DELETE), features(layout))
    if own.num_rows == 0 and later.num_rows:
        # The step's codes were lost, unless it gave none: it gives those that it gave when only
        # the earlier ones stood, if none of them is another's by now.
        again = _new(engine, seen, earlier)
        if not _share(again, later, "code") and not _share(again, later, "value"):
            return again
    new = _new(engine, seen, stored)
    return pa.concat_tables([own, new]).sort_by([("feature", "ascending"), ("code", "ascending")])


def _stored(lake: Lake, step: Interval) -> pa.Table:
    """All stored codes, but those of the step itself where its partition is damaged."""
    try:
        return vocabulary.rows(lake)
    except CorruptPartition:
        return vocabulary.rows(lake, without=step)


def _new(engine: Engine, seen: Table, stored: pa.Table) -> pa.Table:
    """The codes of values that have none among the stored, in the order of their appearance."""
    given = engine.load(stored)
    fresh = seen.anti_join(given, ["feature", "value"])
    following = given.group_by("feature").agg(next_code=given.code.max() + 1)
    in_order = ibis.window(
        group_by="feature", order_by=["first_committed_at", "first_position", "value"]
    )
    numbered = attach(fresh, following, "feature").mutate(_place=ibis.row_number().over(in_order))
    added = numbered.mutate(code=(numbered.next_code.fill_null(0) + numbered._place).cast("int32"))
    return engine.arrow(added, vocabulary.SCHEMA, "feature", "code")


def _share(one: pa.Table, other: pa.Table, name: str) -> bool:
    """Whether a feature has the same code, or value, in both."""
    both: list[Any] = [
        pc.binary_join_element_wise(rows["feature"], rows[name].cast(pa.string()), "\0")  # type: ignore[call-overload]
        for rows in (one, other)
    ]
    return bool(pc.any(pc.is_in(both[0], value_set=both[1].combine_chunks())).as_py())


def _first_seen(versions: Table, names: list[str]) -> Table:
    stacked = reduce(
        ibis.union,
        [
            versions.select(
                feature=ibis.literal(name),
                value=versions[name],
                first_committed_at=versions[columns.COMMITTED_AT],
                first_position=versions[columns.POSITION],
            )
            for name in names
        ],
    )
    present = stacked.filter(stacked.value.notnull())
    earliest = ibis.window(
        group_by=["feature", "value"], order_by=["first_committed_at", "first_position"]
    )
    ranked = present.mutate(_age=ibis.row_number().over(earliest))
    return ranked.filter(ranked._age == 0).drop("_age")


def encode(items: Table, engine: Engine, codes: pa.Table, layout: Layout) -> Table:
    """Items with `code_<feature>` beside each categorical attribute, null where none."""
    given = engine.load(codes.select(["feature", "value", "code"]))
    by_feature = [
        (
            given.filter(given.feature == name).select(
                **{name: given.value, f"code_{name}": given.code}
            ),
            (name,),
        )
        for name in features(layout)
    ]
    return attach_all(items, by_feature)
