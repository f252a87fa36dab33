"""What counts as the same change delivered twice."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.validate.duplicates import repeated


def repetitions(*changes: tuple[str, int | None, float | None]) -> list[int]:
    ops, keys, prices = zip(*changes, strict=True)
    table = pa.table({
        "sku": pa.array(keys, pa.int64()),
        "price": pa.array(prices, pa.float64()),
        "_op": pa.array(ops, pa.string()),
    })  # fmt: skip
    mask = repeated(table, ("sku",), ("sku", "price"), threads=1)
    return [place for place, repeats in enumerate(mask) if repeats]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("insert", 1, 2.0), ("insert", 1, 2.0), ("insert", 1, 2.0)], [1, 2]),
        ([("insert", 1, None), ("insert", 1, None)], [1]),
        ([("insert", 1, 2.0), ("insert", 2, 2.0)], []),
        ([("insert", 1, 2.0), ("update", 1, 2.0)], []),
        ([("update", 1, 2.0), ("insert", 2, 9.0), ("update", 1, 2.0)], [2]),
        # A late delivery of the insert must not bring the corrected value back.
        ([("insert", 1, 2.0), ("update", 1, 3.0), ("insert", 1, 2.0)], [2]),
        # A price goes up and comes down again: both updates count.
        ([("update", 1, 2.0), ("update", 1, 3.0), ("update", 1, 2.0)], []),
        # Cancelled and ordered again: the second insert is a new life of the key.
        ([("insert", 1, 2.0), ("delete", 1, 2.0), ("insert", 1, 2.0)], []),
        ([("delete", 1, 2.0), ("delete", 1, 2.0)], []),
        # Without a key nothing tells two rows to be the same one.
        ([("insert", None, 2.0), ("insert", None, 2.0)], []),
    ],
)
def test_repetition(changes: list[tuple[str, int | None, float | None]], expected: list[int]):
    assert repetitions(*changes) == expected


def test_names_are_quoted():
    table = pa.table({'or"der': [1, 1], "group": ["a", "a"], "_op": ["insert", "insert"]})
    assert repeated(table, ('or"der',), ('or"der', "group"), threads=1).tolist() == [False, True]
