"""A content hash depends on schema, values and order: not on chunks, nor on what nulls hide."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.shared.hashing import ContentHash, content_hash

SCHEMA = pa.schema(
    {
        "i": pa.int64(),
        "n": pa.int32(),
        "s": pa.string(),
        "b": pa.bool_(),
        "d": pa.decimal128(10, 2),
        "t": pa.timestamp("us", "UTC"),
        "l": pa.list_(pa.int64()),
    }
)
YEARS = {"min_value": dt.datetime(2000, 1, 1), "max_value": dt.datetime(2020, 1, 1)}  # noqa: DTZ001
ROW = st.fixed_dictionaries(
    {
        "i": st.none() | st.integers(-9, 9),
        "n": st.none() | st.integers(-9, 9),
        "s": st.none() | st.text(max_size=3),
        "b": st.none() | st.booleans(),
        "d": st.none() | st.decimals(-9, 9, places=2),
        "t": st.none() | st.datetimes(**YEARS, timezones=st.just(dt.UTC)),
        "l": st.none() | st.lists(st.integers(0, 5), max_size=2),
    }
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROW, max_size=40),
    cuts=st.lists(st.integers(0, 40)),
    others=st.lists(ROW, max_size=9),
)
def test_pieces_hash_as_the_whole(
    monkeypatch: pytest.MonkeyPatch, rows: Any, cuts: Any, others: Any
) -> None:
    monkeypatch.setattr(ContentHash, "_ROWS", 8)
    whole = pa.Table.from_pylist(rows, SCHEMA)
    amid = pa.Table.from_pylist(others + rows + others, SCHEMA)
    whole_hash, sliced = ContentHash(SCHEMA), ContentHash(SCHEMA)
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    for start, end in pairwise(edges):
        whole_hash.add(pa.Table.from_pylist(rows[start:end], SCHEMA))
        sliced.add(amid.slice(len(others) + start, end - start))
    mask = [False] * len(others) + [True] * len(rows) + [False] * len(others)
    filtered = content_hash(amid.filter(pa.array(mask, pa.bool_())))
    assert whole_hash.hexdigest() == sliced.hexdigest() == filtered == content_hash(whole)


def test_a_value_an_order_and_a_type_tell() -> None:
    table = pa.table({"a": pa.array([1, None, 3], pa.int64())})
    others = [
        pa.table({"a": pa.array([1, 0, 3], pa.int64())}),
        pa.table({"a": pa.array([None, 1, 3], pa.int64())}),
        pa.table({"a": pa.array([1, None, 3], pa.int32())}),
        pa.table({"b": pa.array([1, None, 3], pa.int64())}),
        table.slice(0, 2),
    ]
    assert len({content_hash(each) for each in [table, *others]}) == 6
