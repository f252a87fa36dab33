"""Groups from baskets: what makes one, its labels, its features. Two weeks, a story a shopper."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines import features
from tests.features.small_logs import Grocery, at, rows_of

pytestmark = pytest.mark.slow

Row = dict[str, Any]


@dataclass(frozen=True)
class Weeks:
    """What the second week left."""

    shop: Grocery
    rows: list[Row]
    index: dict[str, Row]
    served: features.Served
    serving: list[Row]

    def row(self, group: str, item: int) -> Row:
        """A candidate of a group."""
        return next(r for r in self.rows if (r["group_id"], r["item_id"]) == (group, item))


def _first_week(shop: Grocery) -> None:
    shop.line(1, 100, 1, 1, quantity=2)
    shop.line(1, 100, 1, 3)
    shop.line(2, 101, 2, 1)
    shop.line(5, 102, 1, 1)
    shop.line(6, 103, 2, 2, quantity=17_000, paid=40)
    shop.line(3, 110, 4, 4)
    shop.line(4, 111, 4, 4)
    shop.line(6.5, 110, 4, 4, op="delete")
    shop.line(5, 120, 5, 3)
    shop.line(3, 130, 6, 5, happened=4.5)
    shop.line(6, 140, 7, 77)
    shop.add("households", 6, "delete", household_id=10)
    for edges, display, mailer in (((7, 9), 0.4, 0.1), ((8, 12), 0.2, 0.6)):
        shop.add(
            "promotions", 5, product_id=1, valid_from=at(edges[0]), valid_until=at(edges[1]),
            display_share=display, mailer_share=mailer,
        )  # fmt: skip


def _second_week(shop: Grocery) -> None:
    shop.line(8.5, 200, 1, 1)
    shop.line(8.5, 200, 1, 6)
    shop.line(8.5, 200, 1, 88)
    shop.line(9, 201, 2, 2)
    shop.line(8, 210, 3, 1)
    shop.line(9, 210, 3, 1, op="delete")
    shop.line(8, 211, 4, 4)
    shop.line(8, 120, 5, 4, happened=5)
    shop.line(9, 220, 5, 3, happened=6)
    shop.line(9, 221, 5, 1, happened=-60)
    shop.line(8, 230, 6, 1, happened=100)
    shop.line(8, 231, 6, 1)
    shop.line(8, 240, 7, 77)
    for order, day in ((250, 7.5), (251, 8.5), (252, 9), (253, 12)):
        shop.line(day, order, 8, 1)


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    """Both weeks, run one after the other, and served."""
    shop = Grocery(tmp_path_factory.mktemp("grocery"), shoppers=10)
    _first_week(shop)
    _second_week(shop)
    shop.validate(0, 1)
    features.run(shop.shelf.run(0))
    run = shop.shelf.run(1)
    features.run(run)
    served = features.serve(run)
    index = {row["group_id"]: row for row in rows_of(run, "group_index/basket")}
    rows = rows_of(run, "groups/basket")
    return Weeks(shop, rows, index, served, rows_of(run, "serving/basket"))


def test_each_basket_that_arrived_and_stayed_is_a_group(weeks: Weeks) -> None:
    assert sorted(weeks.index) == [
        "200", "201", "211", "220", "231", "240", "250", "251", "252", "253"
    ]  # fmt: skip
    counts = weeks.shop.shelf.run(1).ledger.manifests("features")[-1].counts
    assert counts["groups"] == 10
    of_food = {"200", "211", "220"}
    assert counts["rows"] == len(weeks.rows) == 10 * len({1, 2, 3, 4}) + len(of_food) * 2
    assert counts["skipped_late"] == len({"120", "221"})


def test_labels_and_what_the_candidates_missed(weeks: Weeks) -> None:
    labels = {row["item_id"]: row["label"] for row in weeks.rows if row["group_id"] == "200"}
    assert labels == {1: 1, 2: 0, 3: 0, 4: 0, 5: 0, 6: 1}
    group = weeks.index["200"]
    assert (group["n_relevant"], group["n_found"], group["n_candidates"]) == (3, 2, 6), (
        "item 88, which the catalogue lacks, had never been bought"
    )
    assert (group["group_time"], group["mature_at"]) == (at(8.5), at(8.5))


def test_feature_values(weeks: Weeks) -> None:
    row = weeks.row("200", 1)
    assert row["pair_orders"] == 2
    assert row["pair_share"] == 2 / 2
    assert row["pair_days_since"] == pytest.approx(8.5 - 5)
    assert row["pair_gap_days"] == pytest.approx(5 - 1)
    assert row["pair_cycle"] == pytest.approx(3.5 / 4)
    assert row["pair_item_cycle"] == pytest.approx(3.5 / 4)
    assert row["pair_quantity"] == pytest.approx((2 + 1) / 2)
    assert row["pair_orders_faded"] == pytest.approx(0.5 ** (6 / 42) + 0.5 ** (2 / 42), abs=1e-5)
    assert row["category_share"] == 1
    assert row["pair_share_of_category"] == 1
    assert row["brand_share"] == 1
    assert row["item_popularity_28d"] == pytest.approx(2 / 5)
    assert row["item_repeat_rate"] == pytest.approx(1 / 2)
    assert row["price"] == 1
    assert row["price_to_category"] == pytest.approx(1 / ((1 + 2) / 2))
    assert row["shopper_basket"] == pytest.approx(3 / 2)
    assert (row["hour"], row["weekday"]) == (12, 1)
    assert (row["from_repurchase"], row["from_popularity"], row["from_copurchase"]) == (1, 1, 0)


def test_what_nobody_bought_is_proposed_while_it_is_new_or_promoted(tmp_path: Path) -> None:
    """Items 3 to 6 are food, and 4 to 6 were listed in the first week and never bought."""
    shop = Grocery(tmp_path)
    for week in range(6):
        shop.line(week * 7 + 1, 100 + week, 1, 3)
    shop.item(36, 7, "food")
    shop.item(36, 8, "toys")
    shop.item(36, 4, "food", price=9, op="update")
    shop.add(
        "promotions", 30, product_id=6, valid_from=at(30), valid_until=at(50),
        display_share=0.5, mailer_share=0.0,
    )  # fmt: skip
    shop.validate(*range(7))
    for week in range(6):
        run = shop.shelf.run(week)
        features.run(run)
    novel = {row["item_id"] for row in rows_of(run, "groups/basket") if row["from_novel"]}
    assert novel == {6}, "promoted; the others were listed more than four weeks ago"
    features.run(shop.shelf.run(6))
    features.serve(shop.shelf.run(6))
    served = rows_of(shop.shelf.run(6), "serving/basket")
    novel = {row["item_id"] for row in served if row["shopper_id"] == 1 and row["from_novel"]}
    assert novel == {6, 7}, "a new price does not make item 4 new, and toys are not bought"


def test_novel_items_take_a_few_places_at_most(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    surface = shop.shelf.shop.surface.model_copy(update={"max_candidates": 40})
    few = replace(shop.shelf, shop=shop.shelf.shop.model_copy(update={"surfaces": (surface,)}))
    for item in range(100, 200):
        shop.item(0, item, "food" if item < 150 else "drinks")
    for item in range(150, 200):
        shop.line(1 + item / 100, item, 1, item)
    shop.line(3, 1000, 1, 3)
    shop.line(8, 1001, 1, 3)
    shop.validate(0, 1)
    for week in (0, 1):
        features.run(few.run(week))
    rows = rows_of(few.run(1), "groups/basket")
    assert len(rows) == 40
    assert sum(row["from_novel"] for row in rows) == 40 // 20


def test_fuel_is_capped(weeks: Weeks) -> None:
    fuel = weeks.row("201", 2)
    assert fuel["pair_quantity"] == 20
    assert fuel["price_to_paid"] == 10


def test_a_basket_cancelled_later_is_no_history(weeks: Weeks) -> None:
    assert weeks.row("211", 4)["pair_orders"] == 1


def test_a_late_basket_is_a_group_of_the_week_it_arrives_in(weeks: Weeks) -> None:
    group = weeks.index["220"]
    assert (group["group_time"], group["mature_at"]) == (at(6), at(9))
    since = weeks.row("220", 3)["pair_days_since"]
    assert since == pytest.approx(7 - 5), "seen from the start of the week"


def test_an_event_that_claims_the_far_future_never_counts(weeks: Weeks) -> None:
    assert weeks.row("231", 1)["shopper_orders_28d"] == 0
    sources = {
        (row["from_popularity"], row["from_novel"]) for row in weeks.rows if row["item_id"] == 5
    }
    assert sources == {(0, 1)}, "nobody bought it yet"


def test_an_item_outside_the_catalogue_is_no_candidate(weeks: Weeks) -> None:
    assert 77 not in {row["item_id"] for row in (*weeks.rows, *weeks.serving)}
    assert (weeks.index["240"]["n_relevant"], weeks.index["240"]["n_found"]) == (1, 0)


def test_periods_hold_at_the_groups_time(weeks: Weeks) -> None:
    seen = {
        group: tuple(
            round(weeks.row(group, 1)[f"period_{name}"], 3) for name in ("display", "mailer")
        )
        for group in ("250", "251", "252", "253")
    }
    assert seen == {"250": (0.4, 0.1), "251": (0.4, 0.6), "252": (0.2, 0.6), "253": (0.0, 0.0)}


def test_cold_shoppers_are_served_what_is_popular(weeks: Weeks) -> None:
    assert (weeks.served.shoppers, weeks.served.cold) == (9, 2), "3 cancelled, 9 never came"
    cold = [row for row in weeks.serving if row["shopper_id"] == 9]
    assert {row["item_id"] for row in cold} == {1, 2, 3, 4, 6}
    assert all(row["from_popularity"] == 1 and row["pair_share"] is None for row in cold)


def test_a_deleted_shopper_is_not_served(weeks: Weeks) -> None:
    assert {row["shopper_id"] for row in weeks.serving} == set(range(1, 10))


def test_serving_and_groups_have_the_same_features(weeks: Weeks) -> None:
    built = features.run(weeks.shop.shelf.run(1))
    assert set(built.features) == set(weeks.serving[0]) - {"shopper_id", "item_id"}
    assert set(built.features) < set(weeks.rows[0])
    assert set(built.categorical) == {"item_category", "item_department", "item_brand"}


def test_what_was_deleted_or_cannot_be_had_is_not_proposed(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    item = shop.shelf.shop.item.model_copy(update={"available": "price"})
    shelf = replace(shop.shelf, shop=shop.shelf.shop.model_copy(update={"item": item}))
    for order, bought in enumerate((1, 2, 3, 4)):
        shop.line(1, 100 + order, 1, bought)
    shop.item(2, 2, "drinks", price=0)
    shop.item(2, 3, "food", op="delete")
    shop.item(2, 5, "food", price=0)
    shop.line(8, 200, 1, 1)
    shop.validate(0, 1)
    features.run(shelf.run(0, 1))
    proposed = {row["item_id"] for row in rows_of(shelf.run(1), "groups/basket")}
    assert {1, 2, 4} <= proposed
    assert 3 not in proposed
    features.serve(shelf.run(1))
    served = {row["item_id"] for row in rows_of(shelf.run(1), "serving/basket")}
    assert {1, 4} <= served
    assert not served & {2, 3, 5}


def test_a_list_is_for_the_weekday_and_hour_at_which_the_shopper_comes(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    for order, day in enumerate((2 + 17 / 24, 3 + 17 / 24, 9 + 17 / 24)):
        shop.line(day, 100 + order, 1, 1)
    for order, shopper in enumerate((2, 2, 2, 2)):
        shop.line(5 + order / 7 + 8 / 24, 200 + order, shopper, 1)
    shop.validate(0, 1)
    run = shop.shelf.run(1)
    features.run(run)
    features.serve(run)
    rows = rows_of(run, "serving/basket")
    comes = {row["shopper_id"]: (row["weekday"], row["hour"]) for row in rows}
    assert comes[1] == (2, 17)
    assert comes[2][0] == comes[3][0] == 5
    (days,) = {
        row["pair_days_since"] for row in rows if (row["shopper_id"], row["item_id"]) == (1, 1)
    }
    assert days == pytest.approx(7)
