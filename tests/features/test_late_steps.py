"""Steps that come late or change: nothing of them is lost, whatever was folded meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.validated_lake import ValidatedLake, of_step
from pipelines import features, maintain
from pipelines.features.pending import StepMissing
from pipelines.shared.errors import CorruptPartition
from tests.features.small_logs import Grocery

pytestmark = pytest.mark.slow
WEEKS = range(3)


def grocery(folder: Path) -> Grocery:
    """Three weeks: each brings an item, a shopper and two orders."""
    shop = Grocery(folder)
    for week in WEEKS:
        day = 7 * week + 1
        shop.item(day, 10 + week, "food")
        shop.add("households", day, household_id=10 + week)
        for shopper in (1, 10 + week):
            shop.line(day, 100 * week + shopper, shopper, 10 + week)
            shop.line(day, 100 * week + shopper, shopper, 1 + week)
    return shop


def folded(shelf: ValidatedLake) -> list[tuple[Any, ...]]:
    """What every step's manifest says of its groups and its state."""
    return [
        (each.interval.key, each.counts, each.content_hash, each.details["chain"])
        for each in shelf.run(0).ledger.manifests("features")
    ]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Grocery:
    """The weeks folded in order, once."""
    shop = grocery(tmp_path_factory.mktemp("clean"))
    shop.validate(*WEEKS)
    features.run(shop.shelf.run(0, 2))
    return shop


def test_a_table_that_waits_holds_up_later_steps(clean: Grocery, tmp_path: Path) -> None:
    shop = grocery(tmp_path)
    shop.validate(0, 2)
    without = set(shop.shelf.shop.tables) - {"products"}
    shop.shelf.validated(1, of_step(shop.tables(), 1), without)
    features.run(shop.shelf.run(0))
    with pytest.raises(StepMissing, match=r"2017-01-09.* not validated for products, .*--start"):
        features.run(shop.shelf.run(2))
    assert [each[0] for each in folded(shop.shelf)] == [shop.shelf.run(0).interval.key]
    shop.shelf.validated(1, of_step(shop.tables(), 1), ["products"])
    features.run(shop.shelf.run(2))
    assert folded(shop.shelf) == folded(clean.shelf)


def test_a_step_validated_again_is_folded_again_with_all_that_follow(
    clean: Grocery, tmp_path: Path
) -> None:
    shop = grocery(tmp_path)
    shop.validate(*WEEKS)
    whole = of_step(shop.tables(), 1)
    held_back = {name: rows.slice(0, rows.num_rows // 2) for name, rows in whole.items()}
    shop.shelf.validated(1, held_back)
    features.run(shop.shelf.run(0, 1))
    assert folded(shop.shelf)[1:] != folded(clean.shelf)[1:2]
    shop.shelf.validated(1, whole)
    built = features.run(shop.shelf.run(2))
    assert built.healed == (shop.shelf.run(1).interval.key,)
    assert folded(shop.shelf) == folded(clean.shelf)


def test_an_early_step_run_again_alone_takes_the_later_ones_along(
    clean: Grocery, tmp_path: Path
) -> None:
    shop = grocery(tmp_path)
    shop.validate(*WEEKS)
    shop.shelf.validated(1, {})
    features.run(shop.shelf.run(0, 2))
    assert features.run(shop.shelf.run(1)).healed == ()
    shop.shelf.validated(1, of_step(shop.tables(), 1))
    built = features.run(shop.shelf.run(1))
    assert built.healed == (shop.shelf.run(2).interval.key,)
    assert folded(shop.shelf) == folded(clean.shelf)


def test_a_table_declared_later_has_no_gap_before_it(tmp_path: Path) -> None:
    shop = grocery(tmp_path)
    without = set(shop.shelf.shop.tables) - {"promotions"}
    for week in (0, 1):
        shop.shelf.validated(week, of_step(shop.tables(), week), without)
    with pytest.raises(StepMissing, match="promotions"):
        features.run(shop.shelf.run(1))
    shop.validate(2)
    assert len(features.run(shop.shelf.run(2)).healed) == 2


@pytest.mark.parametrize("table", ["state/items", "state/events", "state/factors_items"])
def test_state_whose_newest_log_entry_is_lost_is_damage(tmp_path: Path, table: str) -> None:
    shop = grocery(tmp_path)
    shop.validate(*WEEKS)
    features.run(shop.shelf.run(0, 1))
    before = folded(shop.shelf)
    run = shop.shelf.run(1)
    max((run.lake.local_root / table / "_delta_log").glob("*.json")).unlink()
    with pytest.raises(CorruptPartition, match=rf"{table}, partition {run.interval.key}.*--repair"):
        features.run(shop.shelf.run(2))
    with pytest.raises(CorruptPartition, match=table):
        features.serve(run)
    faults = [each for each in maintain.verify(run).faults if each.stage == "features"]
    assert [(each.interval, table in each.what) for each in faults] == [(run.interval, True)]
    maintain.repair(run, faults)
    assert "features" not in {each.stage for each in maintain.verify(run).faults}
    assert folded(shop.shelf) == before
    assert features.run(shop.shelf.run(2)).healed == ()


def test_state_of_other_rows_is_found_by_verification(tmp_path: Path) -> None:
    shop = grocery(tmp_path)
    shop.validate(0)
    run = shop.shelf.run(0)
    features.run(run)
    rows = run.lake.read("state/items", [run.interval]).drop_columns(["interval_start"])
    other = rows["price_cents"].combine_chunks().fill_null(0).take(list(reversed(range(len(rows)))))
    place = rows.column_names.index("price_cents")
    run.lake.replace("state/items", run.interval, rows.set_column(place, "price_cents", other))
    (what,) = (each.what for each in maintain.verify(run).faults if each.stage == "features")
    assert what.startswith("state/items: the rows are not the ones recorded")
