"""Pieces of the state: event versions, keys, snapshots, stretches of periods, the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.validated_lake import ValidatedLake
from pipelines.features.catalogue import catalogue
from pipelines.features.engines import engine
from pipelines.features.engines.base import Engine
from pipelines.features.state import entities
from pipelines.features.state.events import (
    cents,
    joined_key,
    lines,
    normalise,
    plausible,
    standing,
)
from pipelines.features.state.storage import Layout
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import DeclarationError
from tests.extract.postgres_shop import DECLARED
from tests.features.small_logs import Web, at

Row = dict[str, Any]


@pytest.fixture(scope="module")
def duck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine for the module."""
    shelf = ValidatedLake.at(tmp_path_factory.mktemp("engine"), "tiny", DECLARED, threads=1)
    with engine(shelf.settings) as opened:
        yield opened


def _actions(duck: Engine, web: Web, place: int) -> Any:
    layout = Layout(web.shelf.shop)
    changes = duck.load(web.tables()["actions"])
    return normalise(changes, layout, web.shelf.shop.events[place])


def _rows(duck: Engine, table: Any, *order: str) -> list[Row]:
    rows: list[Row] = duck.arrow(table, table.schema().to_pyarrow(), *order).to_pylist()
    return rows


def test_an_amount_that_is_no_price_is_unknown(duck: Engine) -> None:
    inf = float("inf")
    given = [1.25, -3.0, 0.0, None, inf, -inf, float("nan"), 1e308, 1e12, 1.01e12]
    table = duck.load(pa.table({"amount": pa.array(given), "place": range(len(given))}))
    table = table.select("place", cents=cents(table.amount))
    counted = [row["cents"] for row in _rows(duck, table, "place")]
    assert counted == [125, -300, 0, None, None, None, None, None, 10**14, None]
    whole = duck.load(pa.table({"amount": pa.array([7, 2**62])}))
    whole = whole.select(cents=cents(whole.amount))
    assert [row["cents"] for row in _rows(duck, whole, "cents")] == [700, None]


def test_a_changed_kind_leaves_a_delete_behind(duck: Engine, tmp_path: Path) -> None:
    web = Web(tmp_path)
    web.act(1, "1", "view", "u", "a")
    web.act(2, "1", "cart", "u", "a", op="update")
    web.act(3, "2", "view", "u", "b")
    views = _actions(duck, web, 0)
    assert [(row["event_key"], row["_op"]) for row in _rows(duck, views, "_position")] == [
        ("view:1", "insert"), ("view:1", "delete"), ("view:2", "insert")
    ]  # fmt: skip
    assert [row["event_key"] for row in _rows(duck, standing(views), "event_key")] == ["view:2"]
    carts = standing(_actions(duck, web, 1))
    assert [row["event_key"] for row in _rows(duck, carts, "event_key")] == ["cart:1"]


def test_the_last_position_stands_whatever_the_order(duck: Engine, tmp_path: Path) -> None:
    web = Web(tmp_path)
    web.act(1, "1", "view", "u", "a")
    web.act(1.5, "gone", "view", "u", "a", op="delete")
    web.act(1.6, "unknown", "view", "v", "a", op="update")
    web.act(0.5, "1", "view", "u", "b", op="update")
    stood = _rows(duck, standing(_actions(duck, web, 0)), "event_key")
    assert [(row["event_key"], row["item_id"]) for row in stood] == [
        ("view:1", "b"), ("view:unknown", "a")
    ]  # fmt: skip


def test_a_session_without_group_is_the_shoppers_day(duck: Engine, tmp_path: Path) -> None:
    web = Web(tmp_path)
    web.act(1.2, "1", "view", "u", "a")
    web.act(1.9, "2", "view", "u", "a")
    web.act(2.1, "3", "view", "u", "a")
    counted = lines(plausible(standing(_actions(duck, web, 0))), web.shelf.shop)
    assert [row["weight"] for row in _rows(duck, counted, "time")] == [333, 333], "1 of 3 grades"


_texts = st.text(alphabet="a|\\", max_size=4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(_texts, _texts), min_size=2, max_size=6, unique=True))
def test_keys_of_different_columns_differ(pairs: list[tuple[str, str]]) -> None:
    connection = ibis.duckdb.connect()
    table = pa.table({"x": [pair[0] for pair in pairs], "y": [pair[1] for pair in pairs]})
    connection.con.register("pairs", table)
    rows = connection.table("pairs")
    keys = connection.to_pyarrow(rows.select(key=joined_key(rows, "k:", ["x", "y"])))
    assert len(set(keys["key"].to_pylist())) == len(pairs)
    connection.disconnect()


def _versions(*rows: tuple[int, str, str]) -> pa.Table:
    """position, op, item."""
    return pa.table(
        {
            "item_id": [row[2] for row in rows],
            "_position": pa.array([row[0] for row in rows], pa.int64()),
            "_op": [row[1] for row in rows],
        }
    )


def test_a_snapshot_is_overruled_by_later_changes(duck: Engine) -> None:
    before = duck.load(_versions((1, "", "a"), (2, "", "b")).drop_columns(["_op"]))
    delta = duck.load(
        _versions((3, "update", "a"), (4, "delete", "b"), (5, "delete", "c"), (6, "insert", "d"))
    )
    folded = _rows(duck, entities.fold(before, delta, "item_id"), "item_id")
    assert [(row["item_id"], row["_position"]) for row in folded] == [("a", 3), ("d", 6)]


def test_overlapping_periods_become_stretches_with_the_largest_value(
    duck: Engine, tmp_path: Path
) -> None:
    layout = Layout(ValidatedLake.at(tmp_path, "completejourney").shop)
    rows = [
        {"valid_from": at(0), "valid_until": at(4), "display": 0.3, "mailer": 0.0},
        {"valid_from": at(2), "valid_until": at(6), "display": 0.1, "mailer": 0.5},
        {"valid_from": at(8), "valid_until": at(7), "display": 0.9, "mailer": 0.9},
    ]
    filled = [{"period_key": str(n), "item_id": 1, "_position": n} | r for n, r in enumerate(rows)]
    table = duck.load(pa.Table.from_pylist(filled, schema=layout.periods))
    stretches = _rows(duck, entities.segments(table, layout), "segment_start")
    micros = [int(at(day).timestamp() * 1e6) for day in (0, 2, 4, 6)]
    assert [
        (row["segment_start"], row["segment_end"], row["period_display"], row["period_mailer"])
        for row in stretches
    ] == [
        (micros[0], micros[1], 0.3, 0.0),
        (micros[1], micros[2], 0.3, 0.5),
        (micros[2], micros[3], 0.1, 0.5),
    ]


def _shop(tmp_path: Path, **item: Any) -> Shop:
    shop = ValidatedLake.at(tmp_path, "tiny", DECLARED).shop
    return shop.model_copy(update={"item": shop.item.model_copy(update=item)})


def test_every_feature_says_what_it_is(tmp_path: Path) -> None:
    features = catalogue(Layout(ValidatedLake.at(tmp_path, "completejourney").shop))
    assert all(each.meaning and each.grain and each.unit for each in features)
    assert [each.name for each in features if each.categorical] == [
        "item_category", "item_department", "item_brand"
    ]  # fmt: skip


def test_a_shop_without_prices_has_no_price_features(tmp_path: Path) -> None:
    of_price = [
        {each.name for each in catalogue(Layout(shop)) if "price" in each.name}
        for shop in (_shop(tmp_path), _shop(tmp_path, price=None))
    ]
    assert of_price[0] >= {"price", "price_to_category", "price_band_share"}
    assert of_price[1] == set()


def test_an_attribute_may_not_make_a_second_feature_of_a_name(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="item_trend; rename the attribute"):
        catalogue(Layout(_shop(tmp_path, attributes={"trend": "maker"})))
