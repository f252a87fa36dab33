"""What the bundled shop's history holds, against the wheel's own files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from shops.completejourney.history import History, commit_time, last_tick
from shops.completejourney.life import OPENING, Life
from shops.completejourney.package import data_files
from shops.completejourney.replay import STEPS

SHARE = 0.2
UNTIL = datetime(2017, 3, 13, tzinfo=UTC)
LIFE = Life()
COLUMNS = {
    step.history: ["tick", *(column.split()[0] for column in step.columns.split(", "))]
    for step in STEPS
}


def read(history: History, table: str, folder: Path) -> pd.DataFrame:
    file = folder / f"{table}.csv"
    history.write_csv(table, file)
    return pd.read_csv(file, header=None, names=COLUMNS[table], na_values=["\\N"])


@pytest.fixture(scope="module")
def sources() -> dict[str, Path]:
    return data_files()


@pytest.fixture(scope="module")
def history(sources: dict[str, Path]) -> Iterator[History]:
    with History(sources, SHARE, UNTIL, LIFE) as lived:
        yield lived


@pytest.fixture(scope="module")
def tables(history: History, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("history")
    return {table: read(history, table, folder) for table in COLUMNS}


@pytest.fixture(scope="module")
def sold(sources: dict[str, Path]) -> pd.DataFrame:
    """The wheel's lines of the first weeks, as they are."""
    return duckdb.sql(
        f"FROM '{sources['transactions']}' WHERE transaction_timestamp < '{UNTIL:%Y-%m-%d}'"
    ).df()


def test_ticks_end_before_the_replay_does() -> None:
    assert commit_time(0, LIFE) == OPENING
    assert commit_time(1, LIFE) == datetime(2017, 1, 1, 3, tzinfo=UTC)
    assert last_tick(datetime(2017, 1, 2, tzinfo=UTC), LIFE) == 7
    assert last_tick(datetime(2017, 1, 2, 1, tzinfo=UTC), LIFE) == 8


def test_a_smaller_share_and_an_earlier_end_are_part_of_the_whole(
    sources: dict[str, Path], tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    until = datetime(2017, 2, 6, tzinfo=UTC)
    with History(sources, SHARE / 2, until, LIFE) as smaller:
        shoppers = set(read(smaller, "orders_new", tmp_path)["household_id"].dropna())
        for name, whole in tables.items():
            part = read(smaller, name, tmp_path)
            whole = whole[whole["tick"] <= last_tick(until, LIFE)]
            if name in ("orders_new", "lines_new"):
                part = part[part["household_id"].notna()]
                whole = whole[whole["household_id"].isin(shoppers)]
            if name in ("orders_cancelled", "lines_corrected"):
                whole = whole[whole["order_id"].isin(part["order_id"])]
            pd.testing.assert_frame_equal(
                part.reset_index(drop=True), whole.reset_index(drop=True), check_dtype=False
            )


def test_the_share_takes_that_share_of_the_shoppers(
    tables: dict[str, pd.DataFrame], sold: pd.DataFrame
) -> None:
    share = tables["orders_new"]["household_id"].nunique() / sold["household_id"].nunique()
    assert share == pytest.approx(SHARE, abs=0.03)


def test_a_sale_is_committed_after_it_happened_and_mostly_within_a_tick(
    tables: dict[str, pd.DataFrame], sold: pd.DataFrame
) -> None:
    happened = sold.drop_duplicates("basket_id").set_index("basket_id")["transaction_timestamp"]
    orders = tables["orders_new"]
    committed = pd.Timestamp(OPENING).tz_localize(None) + pd.to_timedelta(
        orders["tick"] * LIFE.tick_hours, unit="h"
    )
    delay_h = (committed - orders["order_id"].map(happened)).dt.total_seconds() / 3600
    late = delay_h > LIFE.tick_hours
    assert delay_h.min() > 0
    assert delay_h[~late].max() <= LIFE.tick_hours
    assert late.mean() == pytest.approx(LIFE.late_order_rate, rel=0.5)
    assert delay_h.max() < 24 * LIFE.late_order_days[1] + LIFE.tick_hours


def test_the_lot_falls_as_often_as_the_rates_say(tables: dict[str, pd.DataFrame]) -> None:
    lines, orders, promotions = (
        tables[name] for name in ("lines_new", "orders_new", "promotions_new")
    )
    key = ["order_id", "line_no"]
    broken = (
        lines["household_id"].isna()
        | lines["product_id"].isna()
        | (lines["quantity"] < 0)
        | (lines["sales_value"] >= 1_000_000)
        | (pd.to_datetime(lines["ordered_at"]) > pd.Timestamp(UNTIL).tz_localize(None))
    )
    for observed, expected in (
        (lines.duplicated(key).mean(), LIFE.duplicate_rate),
        (len(tables["lines_corrected"]) / len(lines), LIFE.corrected_rate),
        (len(tables["orders_cancelled"]) / len(orders), LIFE.cancelled_rate),
        (len(tables["promotions_withdrawn"]) / len(promotions), LIFE.promotion_withdrawn_rate),
        (len(tables["promotions_changed"]) / len(promotions), LIFE.promotion_changed_rate),
        ((tables["price_updates"]["price"] < 0).mean(), LIFE.broken_price_rate),
        (broken.mean(), LIFE.broken_line_rate),
    ):
        assert observed == pytest.approx(expected, rel=0.5)


def test_a_second_delivery_is_the_same_row(tables: dict[str, pd.DataFrame]) -> None:
    lines = tables["lines_new"]
    twice = lines[lines.duplicated(["order_id", "line_no"], keep=False)]
    assert twice.drop(columns="tick").drop_duplicates().shape[0] * 2 == len(twice)


def test_corrections_end_in_what_was_sold(
    tables: dict[str, pd.DataFrame], sold: pd.DataFrame
) -> None:
    lines = tables["lines_new"].set_index(["order_id", "line_no"])
    corrected = tables["lines_corrected"].set_index(["order_id", "line_no"])
    before = lines.loc[corrected.index]
    truth = sold.set_index(["basket_id", "product_id"])["quantity"]
    keys = list(zip(before.index.get_level_values(0), before["product_id"], strict=True))
    assert (before["quantity"] - 1 == corrected["quantity"]).all()
    assert (truth.loc[keys].to_numpy() == corrected["quantity"].to_numpy()).all()
    assert (corrected["tick"] > before["tick"]).all()


def test_a_price_follows_the_week_before(
    tables: dict[str, pd.DataFrame], sold: pd.DataFrame
) -> None:
    updates = tables["price_updates"]
    # Monday 9 January, 00:00 in New York, is 05:00 UTC: committed with the tick that ends at 06:00.
    tick = (8 * 24 + 6) // LIFE.tick_hours
    prices = updates[(updates["tick"] == tick) & (updates["price"] > 0)]
    week = sold[(sold["week"] == 2) & (sold["quantity"] > 0)]
    paid = (week["sales_value"] / week["quantity"]).groupby(week["product_id"]).median()
    off = (prices["price"].to_numpy() - paid.loc[prices["product_id"]].to_numpy()).round(9)
    assert len(prices) > 1000
    assert abs(off).max() <= 0.01


def test_promotions_are_announced_before_they_start(tables: dict[str, pd.DataFrame]) -> None:
    promotions = tables["promotions_new"]
    announced = promotions[promotions["tick"] > 0]
    committed = pd.Timestamp(OPENING).tz_localize(None) + pd.to_timedelta(
        announced["tick"] * LIFE.tick_hours, unit="h"
    )
    ahead = pd.to_datetime(announced["valid_from"]) - committed
    assert ahead.min() > pd.Timedelta(days=2)
    assert not promotions.duplicated(["product_id", "valid_from"]).any()
    for change in ("promotions_changed", "promotions_withdrawn"):
        both = tables[change].merge(promotions, on=["product_id", "valid_from"])
        assert (both["tick_x"] > both["tick_y"]).all()


def test_the_natural_dirt_stays(tables: dict[str, pd.DataFrame], sources: dict[str, Path]) -> None:
    lines = tables["lines_new"]
    catalogue = duckdb.sql(f"FROM '{sources['products']}'").df()
    fuel = catalogue.loc[catalogue["department"] == "FUEL", "product_id"]
    unknown = lines["product_id"].notna() & ~lines["product_id"].isin(catalogue["product_id"])
    assert (lines["quantity"] == 0).any()
    assert (lines["sales_value"] == 0).any()
    assert unknown.any()
    assert (lines.loc[lines["product_id"].isin(fuel), "quantity"] > 1000).any()


def test_fuel_sold_by_volume_has_no_price_a_piece(
    tables: dict[str, pd.DataFrame], sold: pd.DataFrame
) -> None:
    usual = sold.groupby("product_id")["quantity"].median()
    by_volume = usual[usual > 1000].index
    assert len(by_volume) > 0
    assert not tables["price_updates"]["product_id"].isin(by_volume).any()


def test_a_shop_without_life_sells_exactly_what_was_sold(
    sources: dict[str, Path], tmp_path: Path, sold: pd.DataFrame
) -> None:
    rates = {name: 0.0 for name in vars(LIFE) if name.endswith("_rate")}
    until = datetime(2017, 1, 16, tzinfo=UTC)
    with History(sources, 1.0, until, replace(LIFE, **rates)) as calm:
        lines = read(calm, "lines_new", tmp_path)
        assert calm.ticks("orders_cancelled") == []
    cutoff = pd.Timestamp(until).tz_localize(None) - pd.Timedelta(hours=LIFE.tick_hours)
    expected = sold[sold["transaction_timestamp"] < cutoff]
    assert len(lines) == len(expected)
    assert lines["quantity"].sum() == expected["quantity"].sum()
    assert lines["sales_value"].sum() == pytest.approx(expected["sales_value"].sum())
