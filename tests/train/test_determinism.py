"""The same inputs give the same model text, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines import train
from pipelines.shared import columns as c
from pipelines.shared.lake import Lake
from pipelines.shared.models import booster
from tests.train.baskets import FEATURES, SHOP, WEEKS, Installation, interval

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shuffled_baskets(tmp_path_factory: pytest.TempPathFactory, real_baskets: Path) -> Path:
    """The same rows, the weeks written last to first, the rows of each in another order."""
    root = tmp_path_factory.mktemp("shuffled")
    shutil.copy(real_baskets / "ledger.db", root)
    straight = Lake(str(real_baskets / "lake"), SHOP)
    shuffled = Lake(str(root / "lake"), SHOP)
    generator = np.random.default_rng(3)
    for table in ("groups/basket", "group_index/basket", "state/vocabulary"):
        for week in reversed(range(WEEKS)):
            if interval(week).key in straight.intervals(table):
                rows = straight.read(table, [interval(week)]).drop_columns([c.INTERVAL])
                order = generator.permutation(rows.num_rows)
                shuffled.replace(table, interval(week), rows.take(order))
    return root


def _texts(shop: Installation) -> list[str]:
    first = train.run(shop.run(0, 4)).challengers
    shop.promote(0, first[0], 4)
    return [shop.text(each) for each in (*first, *train.run(shop.run(4)).challengers)]


def test_neither_order_nor_files_nor_threads_change_a_model(
    shop: Installation, shuffled_baskets: Path, tmp_path: Path
) -> None:
    other = Installation.at(tmp_path / "other", shuffled_baskets, warm_up_intervals=4)
    one = other.settings.model_copy(update={"threads": 1})
    assert _texts(Installation(one, other.changed)) == _texts(shop)


def test_another_seed_draws_other_negatives(
    install: Callable[..., Installation], real_baskets: Path, tmp_path: Path
) -> None:
    one = install(warm_up_intervals=4, negatives_per_group=10)
    two = Installation.at(
        tmp_path / "other", real_baskets, warm_up_intervals=4, negatives_per_group=10, seed=18
    )
    assert _texts(one) != _texts(two)


def test_categories_are_read_as_stored_codes(shop: Installation) -> None:
    challenger = train.run(shop.run(0, 8)).challengers[0]
    text = shop.text(challenger)
    assert "pandas_categorical:null" in text
    place = FEATURES.index("item_category")
    assert f"[categorical_feature: {place}]" in text
    model = booster.lightgbm().Booster(model_str=text)
    splits = model.trees_to_dataframe()
    own = splits[(splits.split_feature == "item_category") & (splits.decision_type == "==")]
    codes = set(booster.card(shop.any.lake.local_root / challenger.artifact)
                .vocabulary["item_category"].values())  # fmt: skip
    used = {int(code) for chosen in own.threshold for code in str(chosen).split("||")}
    assert used
    assert used <= codes
