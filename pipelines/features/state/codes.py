"""Appending to the vocabulary (law 10)."""

from __future__ import annotations

from functools import reduce

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.features.engines.base import Engine, Table, attach, attach_all
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
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
    stored = vocabulary.rows(lake)
    given = engine.load(stored)
    own = stored.filter(pc.equal(stored[columns.INTERVAL], pa.scalar(step.key))).select(
        vocabulary.SCHEMA.names
    )
    seen = _first_seen(versions.filter(versions[columns.OP] != columns.DELETE), features(layout))
    fresh = seen.anti_join(given, ["feature", "value"])
    following = given.group_by("feature").agg(next_code=given.code.max() + 1)
    in_order = ibis.window(
        group_by="feature", order_by=["first_committed_at", "first_position", "value"]
    )
    numbered = attach(fresh, following, "feature").mutate(_place=ibis.row_number().over(in_order))
    added = numbered.mutate(code=(numbered.next_code.fill_null(0) + numbered._place).cast("int32"))
    new = engine.arrow(added, vocabulary.SCHEMA, "feature", "code")
    return pa.concat_tables([own, new]).sort_by([("feature", "ascending"), ("code", "ascending")])


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
