"""Which steps a run takes, and what it says of those that it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import features
from pipelines.features.stage import StepMissing
from tests.features.small_logs import Grocery, rows_of


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
    assert run.lake.exists("groups/basket")
    first, second = run.ledger.manifests("features")
    assert first.counts["groups"] == 1
    assert second.counts == {
        "groups": 0, "rows": 0, "memory_holdout": 0, "without_relevant": 0, "skipped_late": 0,
        "open": 0,
    }  # fmt: skip
    assert {row["item_id"] for row in rows_of(run, "state/items")} == set(range(1, 7))
