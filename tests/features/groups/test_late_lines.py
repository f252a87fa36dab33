"""A basket, or a list, is formed once, however much later it gains a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import features
from pipelines.features.groups.arrivals import LOOKBACK_STEPS
from tests.features.small_logs import Grocery, Web, rows_of

pytestmark = pytest.mark.slow
LATER = LOOKBACK_STEPS + 2


def test_an_order_that_gains_a_line_much_later_stays_one_group(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    shop.line(1, 100, 1, 1)
    shop.line(7 * LATER + 1, 100, 1, 2)
    shop.line(7 * LATER + 1, 200, 2, 2)
    shop.validate(0, LATER)
    features.run(shop.shelf.run(LATER))
    first, last = shop.shelf.run(0), shop.shelf.run(LATER)
    assert [row["group_id"] for row in rows_of(first, "group_index/basket")] == ["100"]
    assert [row["group_id"] for row in rows_of(last, "group_index/basket")] == ["200"]
    manifest = last.ledger.manifests("features")[-1]
    assert manifest.counts["skipped_late"] == 1


def test_an_order_cancelled_within_its_week_was_never_formed(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    shop.line(1, 100, 1, 1)
    shop.line(2, 100, 1, 1, op="delete")
    shop.line(8, 100, 1, 2)
    shop.validate(0, 1)
    features.run(shop.shelf.run(0, 1))
    assert rows_of(shop.shelf.run(0), "group_index/basket") == []
    (row,) = rows_of(shop.shelf.run(1), "group_index/basket")
    assert row["group_id"] == "100"


def test_a_list_that_gains_an_item_much_later_stays_one_group(tmp_path: Path) -> None:
    web = Web(tmp_path)
    web.show(1, "one", "u", "ab")
    web.show(7 * LATER + 1, "one", "u", "c")
    web.show(7 * LATER + 1, "two", "v", "c")
    web.validate(0, 1, LATER, LATER + 1)
    features.run(web.shelf.run(LATER + 1))
    surface = web.shelf.shop.surface.name
    index = web.shelf.run(0).lake.read(f"group_index/{surface}", None, ["group_id"])
    assert sorted(index["group_id"].to_pylist()) == ["one", "two"]
