"""Law 10: encodings are stored and append-only; a new batch never renumbers an old category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines import features
from pipelines.shared.models import vocabulary
from pipelines.shared.run import Run
from tests.features.small_logs import Grocery, rows_of

pytestmark = pytest.mark.slow

Codes = dict[str, dict[str, int]]


def _codes(run: Run) -> Codes:
    return vocabulary.read(run.lake, run.interval.end)


def _of_item(rows: list[dict[str, Any]], item: int) -> set[int]:
    return {row["item_category"] for row in rows if row["item_id"] == item}


def test_codes_are_only_appended(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    for order, day in ((100, 1), (200, 8), (300, 15), (400, 22)):
        shop.line(day, order, 1, 1)
        shop.line(day, order, 1, 3)
        shop.line(day, order, 1, 9)
    shop.item(10, 8, "zebra food")
    shop.item(9, 9, "an early letter")
    shop.item(16, 1, None, op="update")
    for item in range(3, 7):
        shop.item(17, item, "an early letter", op="update")
    shop.validate(0, 1, 2, 3)
    seen, rows = [], []
    for step in range(4):
        run = shop.shelf.run(step)
        features.run(run)
        seen.append(_codes(run))
        rows.append(rows_of(run, "groups/basket"))

    assert seen[0]["item_category"] == {"drinks": 0, "food": 1}
    assert seen[1]["item_category"] == {
        "drinks": 0, "food": 1, "an early letter": 2, "zebra food": 3
    }, "in the order of their commits"  # fmt: skip
    assert seen[2] == seen[1], "a category that went keeps its code"
    assert seen[3] == seen[1]

    assert _of_item(rows[1], 1) == {0}
    assert _of_item(rows[2], 9) == {2}, "new in the second week, used from the third"
    assert _of_item(rows[1], 9) == set(), "not in the catalogue yet when the week began"
    assert _of_item(rows[3], 1) == {vocabulary.UNKNOWN}, "an item that lost its category"
    assert _of_item(rows[3], 3) == {2}

    run = shop.shelf.run(1)
    stored = vocabulary.rows(run.lake)
    features.run(run)
    features.run(shop.shelf.run(0))
    assert vocabulary.rows(run.lake).equals(stored), "a rerun gives the same codes"
    assert vocabulary.read(run.lake, run.interval.start) == seen[0]

    run.lake.remove(vocabulary.TABLE, [run.interval.key])
    features.run(run)
    assert vocabulary.rows(run.lake).equals(stored), "lost codes are given again, the same"
    for file in (run.lake.local_root / vocabulary.TABLE).glob(
        f"interval_start={run.interval.key[:10]}*/*.parquet"
    ):
        file.write_bytes(b"damage")
    features.run(run)
    assert vocabulary.rows(run.lake).equals(stored), "damaged ones too"
    shop.item(8, 11, "a late letter")
    shop.validate(1)
    features.run(run)
    late = vocabulary.rows(run.lake).to_pylist()
    (code,) = {row["code"] for row in late if row["value"] == "a late letter"}
    categories = [row["code"] for row in stored.to_pylist() if row["feature"] == "item_category"]
    assert code == max(categories) + 1
