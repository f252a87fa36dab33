"""Which steps a run takes, and what it says of those that it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines import features
from pipelines.features.stage import StepMissing
from pipelines.features.state import storage
from pipelines.shared.errors import FeatureMismatch
from tests.features.small_logs import Grocery, at, rows_of

pytestmark = pytest.mark.slow


def test_a_step_left_over_is_folded_first_and_an_empty_one_is_empty(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    shop.line(1, 100, 1, 1)
    run = shop.shelf.run(1)
    with pytest.raises(StepMissing, match="not validated"):
        features.run(run)
    with pytest.raises(StepMissing, match="no features yet"):
        features.serve(run)
    shop.validate(0, 1)
    built = features.run(run)
    assert built.healed == (shop.shelf.run(0).interval.key,)
    assert (built.groups, built.rows) == (0, 0)
    assert (rows_of(run, "groups/basket"), rows_of(run, "group_index/basket")) == ([], [])
    first, second = run.ledger.manifests("features")
    assert first.counts["groups"] == 1
    assert second.counts == {
        "groups": 0, "rows": 0, "memory_holdout": 0, "without_relevant": 0, "skipped_late": 0,
        "open": 0,
    }  # fmt: skip
    assert {row["item_id"] for row in rows_of(run, "state/items")} == set(range(1, 7))


def test_a_lake_from_before_a_declaration_says_so(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    shop.add("promotions", 1, product_id=1, valid_from=at(7), valid_until=at(70), display_share=0.4)
    shop.validate(0, 1)
    features.run(shop.shelf.run(0))
    periods = shop.shelf.shop.periods[0]
    more = periods.model_copy(update={"attributes": periods.attributes | {"shelf": 1.0}})
    later = replace(shop.shelf, shop=shop.shelf.shop.model_copy(update={"periods": [more]}))
    with pytest.raises(
        FeatureMismatch,
        match=r"without what .* asks for: shelf; run `python -m pipelines features rebuild",
    ):
        features.run(later.run(1))


def test_a_step_without_rows_has_no_column_to_lack(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    shop.line(1, 1, 1, 1)
    shop.validate(0, 1)
    features.run(shop.shelf.run(0, 1))
    asked = pa.schema({"item_id": pa.int64(), "shelf": pa.float64()})
    first, second = shop.shelf.run(0), shop.shelf.run(1)
    with pytest.raises(FeatureMismatch, match=first.interval.key):
        storage.read(first, storage.EVENTS, asked, first.interval)
    assert storage.read(second, storage.EVENTS, asked, second.interval).num_rows == 0
