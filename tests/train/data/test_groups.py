"""Reading groups: which candidates are kept, what is left out, what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.shared import columns as c
from pipelines.shared.errors import CorruptPartition, FeatureMismatch
from pipelines.train import plan
from pipelines.train.data import groups
from pipelines.train.data.groups import Catalogue, UnsoundGroups
from tests.train.baskets import CATEGORICAL, FEATURES, Installation, interval

CATALOGUE = Catalogue(FEATURES, CATEGORICAL)


def _rows(sizes: list[tuple[int, int]]) -> pa.Table:
    """Groups of so many relevant candidates and so many others."""
    listed = [
        {c.GROUP: f"g{place}", c.ITEM: item, c.LABEL: int(item < relevant)}
        for place, (relevant, others) in enumerate(sizes)
        for item in range(relevant + others)
    ]
    schema = pa.schema({c.GROUP: pa.string(), c.ITEM: pa.int64(), c.LABEL: pa.int8()})
    return pa.Table.from_pylist(listed, schema)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=6),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_thinning_keeps_the_relevant_and_so_many_others_in_any_order(sizes, negatives, random):
    rows = _rows(sizes)
    order = list(range(rows.num_rows))
    random.shuffle(order)
    kept = groups.thin(rows, negatives, seed=1)
    assert groups.thin(rows.take(pa.array(order, pa.int64())), negatives, seed=1).equals(kept)
    counted = {
        (row[c.GROUP], row[c.LABEL]): row["count"]
        for row in kept.group_by([c.GROUP, c.LABEL])
        .aggregate([([], "count_all")])
        .rename_columns([c.GROUP, c.LABEL, "count"])
        .to_pylist()
    }
    for place, (relevant, others) in enumerate(sizes):
        assert counted.get((f"g{place}", 1), 0) == relevant
        assert counted.get((f"g{place}", 0), 0) == min(others, negatives)


def test_a_group_keeps_its_negatives_whatever_groups_lie_beside_it() -> None:
    alone = groups.thin(_rows([(1, 50)]), 7, seed=1)
    beside = groups.thin(_rows([(1, 50), (2, 40), (0, 9)]), 7, seed=1)
    assert beside.filter(pc.field(c.GROUP) == "g0").equals(alone)
    assert not groups.thin(_rows([(1, 50)]), 7, seed=2).equals(alone)


def _load(shop: Installation) -> groups.Examples:
    run = shop.run(2)
    selection = groups.select(run, plan.steps(run), interval(2).start, interval(2).end)
    return groups.load(run, selection, CATALOGUE)


def _change(shop: Installation, name: str, values: pa.Array) -> None:
    """Replace the first values of a column of a week's groups."""
    lake = shop.any.lake
    rows = lake.read("groups/basket", [interval(2)]).drop_columns([c.INTERVAL])
    place = rows.schema.get_field_index(name)
    column = pa.chunked_array([values, *rows[name].slice(len(values)).chunks])
    lake.replace("groups/basket", interval(2), rows.set_column(place, name, column))


def test_rows_lie_together_by_group_and_match_the_index(shop: Installation) -> None:
    examples = _load(shop)
    assert examples.sizes.sum() == examples.rows == examples.features.num_rows
    assert examples.features.schema.field("item_category").type == pa.int32()
    starts = np.cumsum(examples.sizes) - examples.sizes
    assert np.maximum.reduceat(examples.labels, starts).min() == 1
    assert np.minimum.reduceat(examples.labels, starts).max() == 0
    assert len(set(examples.ids.to_pylist())) == examples.groups


def test_a_group_in_which_all_are_alike_teaches_nothing(shop: Installation) -> None:
    before = _load(shop)
    rows = shop.any.lake.read("groups/basket", [interval(2)]).drop_columns([c.INTERVAL])
    gone = before.ids[0].as_py()
    alike = pc.if_else(pc.equal(rows[c.GROUP], gone), pa.scalar(1, pa.int8()), rows[c.LABEL])
    place = rows.schema.get_field_index(c.LABEL)
    shop.any.lake.replace("groups/basket", interval(2), rows.set_column(place, c.LABEL, alike))
    assert set(before.ids.to_pylist()) - set(_load(shop).ids.to_pylist()) == {gone}


@pytest.mark.parametrize("label", [None, -1, 11])
def test_a_label_that_is_no_grade_is_refused(shop: Installation, label: int | None) -> None:
    size = shop.any.lake.read("groups/basket", [interval(2)]).num_rows
    _change(shop, c.LABEL, pa.array([label] * size, pa.int8()))
    with pytest.raises(UnsoundGroups, match="a label is a grade of 0 … 10"):
        _load(shop)


def test_an_infinite_feature_is_refused_and_a_missing_one_is_not(shop: Installation) -> None:
    size = shop.any.lake.read("groups/basket", [interval(2)]).num_rows
    _change(shop, "days_since", pa.array([None] * size, pa.float32()))
    assert _load(shop).groups
    _change(shop, "days_since", pa.array([np.inf] * size, pa.float32()))
    with pytest.raises(UnsoundGroups, match="feature days_since of 2017-01-23"):
        _load(shop)


def test_an_unknown_category_is_a_missing_value(shop: Installation) -> None:
    size = shop.any.lake.read("groups/basket", [interval(2)]).num_rows
    _change(shop, "item_category", pa.array([-1] * (size // 2), pa.int32()))
    codes = _load(shop).features["item_category"]
    assert codes.null_count
    assert pc.min(codes).as_py() >= 0


def test_a_feature_that_the_lake_lacks_is_named(shop: Installation) -> None:
    run = shop.run(2)
    selection = groups.select(run, plan.steps(run), None, interval(2).end)
    with pytest.raises(FeatureMismatch, match=r"groups/basket lacks .*: weather;"):
        groups.load(run, selection, Catalogue((*FEATURES, "weather"), CATEGORICAL))


def test_a_partition_that_lost_groups_is_not_learned_from(shop: Installation) -> None:
    run = shop.run(2)
    index = run.lake.read("group_index/basket", [interval(2)]).drop_columns([c.INTERVAL])
    run.lake.replace("group_index/basket", interval(2), index.slice(1))
    with pytest.raises(CorruptPartition, match="but the ledger knows of"):
        groups.select(run, plan.steps(run), None, interval(2).end)


def test_a_group_in_two_partitions_is_refused(shop: Installation) -> None:
    run = shop.run(2)
    earlier = run.lake.read("group_index/basket", [interval(1)]).drop_columns([c.INTERVAL])
    own = run.lake.read("group_index/basket", [interval(2)]).drop_columns([c.INTERVAL])
    twice = pa.concat_tables([own.slice(50), earlier.filter(pc.field(c.FOUND) > 0).slice(0, 50)])
    assert twice.num_rows == own.num_rows
    run.lake.replace("group_index/basket", interval(2), twice)
    with pytest.raises(CorruptPartition, match="a group is in two partitions"):
        groups.select(run, plan.steps(run), None, interval(2).end)


def test_only_partitions_that_can_hold_the_range_are_read(shop: Installation) -> None:
    run = shop.run(8)
    since, until = interval(5).end - 3 * (interval(0).end - interval(0).start) / 7, interval(6).end
    wanted = groups.overlapping(run, plan.steps(run), since, until)
    assert [step.interval for step in wanted] == [interval(5), interval(6)]
