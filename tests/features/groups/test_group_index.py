"""The group index: ideal DCG with its arithmetic, recall, counts."""

from math import log2

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.validated_lake import TIME
from pipelines.features.groups.group_index import ideal_dcg, index, recall
from pipelines.features.state.storage import Layout
from pipelines.shared.declaration import load_shop
from pipelines.shared.settings import PROJECT

LAYOUT = Layout(load_shop("completejourney", PROJECT / "shops"))


def test_ideal_of_binary_labels() -> None:
    ideal = ideal_dcg(np.array([0, 0]), np.array([1, 1]), 1)
    assert ideal[0] == pytest.approx(1 / log2(2) + 1 / log2(3))


def test_ideal_sorts_grades_best_first() -> None:
    ideal = ideal_dcg(np.array([0, 0, 0]), np.array([1, 3, 2]), 1)
    assert ideal[0] == pytest.approx(7 / log2(2) + 3 / log2(3) + 1 / log2(4))


def test_ideal_counts_ten_items_and_keeps_groups_apart() -> None:
    ideal = ideal_dcg(np.array([2] * 12 + [0]), np.ones(13, dtype=np.int64), 3)
    ten = sum(1 / log2(rank + 1) for rank in range(1, 11))
    assert ideal == pytest.approx([1.0, 0.0, ten])


def _tables() -> tuple[pa.Table, pa.Table, pa.Table]:
    groups = pa.table(
        {
            "group_id": ["a", "b"],
            "shopper_id": pa.array([1, 2], pa.int64()),
            "group_time": pa.array([0, 0], TIME),
            "mature_at": pa.array([0, 0], TIME),
        }
    )
    labels = pa.table({"group_id": ["a", "a", "b"], "label": pa.array([1, 1, 0], pa.int8())})
    flags = {
        f"from_{name}": pa.array(values, pa.float32())
        for name, values in {
            "repurchase": [1, 1, 0], "popularity": [0, 1, 1], "category": [0, 0, 0],
            "copurchase": [0, 0, 1],
        }.items()
    }  # fmt: skip
    rows = pa.table({"group_id": ["a", "a", "b"], "label": pa.array([1, 0, 0], pa.int8()), **flags})
    return groups, labels, rows


def test_ideal_counts_what_the_candidates_missed() -> None:
    rows = index(*_tables(), LAYOUT.index, 0.05).to_pylist()
    assert [row["n_relevant"] for row in rows] == [2, 0]
    assert [row["n_found"] for row in rows] == [1, 0]
    assert [row["n_candidates"] for row in rows] == [2, 1]
    assert rows[0]["ideal_dcg_at_10"] == pytest.approx(1 / log2(2) + 1 / log2(3))


def test_recall_by_source_leaves_out_groups_without_relevant_items() -> None:
    groups, labels, rows = _tables()
    indexed = index(groups, labels, rows, LAYOUT.index, 0.05)
    assert recall(rows, indexed) == {
        "all": 1 / 2, "repurchase": 1 / 2, "popularity": 0.0, "category": 0.0, "copurchase": 0.0
    }  # fmt: skip


def test_nothing_at_all() -> None:
    groups, labels, rows = (table.slice(0, 0) for table in _tables())
    indexed = index(groups, labels, rows, LAYOUT.index, 0.05)
    assert indexed.schema == LAYOUT.index
    assert recall(rows, indexed)["all"] is None
