"""A value that its declared type cannot hold is quarantined: it stops no table, nor is it bent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import extract, maintain, validate
from pipelines.extract.cursor import adbc
from pipelines.inspect import freshness
from pipelines.shared.columns import MISFITS, OP, REASONS
from pipelines.shared.run import Installation
from tests.extract.drifting import Goods, goods

pytestmark = pytest.mark.services

# Column → declared type, its type in PostgreSQL and SQLite, a sound value, those that do not fit
# each with what is said of it.
COLUMNS: dict[str, tuple[str, str, str, Any]] = {
    "price": ("decimal(10,2)", "numeric", "numeric(10,2)", "1.25"),
    "day": ("date", "date", "date", "2017-01-02"),
    "at": ("timestamp", "timestamptz", "datetime", "2017-01-02 10:00:00"),
    "plain": ("timestamp", "timestamp", "datetime", "2017-01-02 10:00:00"),
    "units": ("int64", "bigint", "bigint", 3),
    "word": ("string", "text", "text", "tea"),
}
POSTGRES = [
    ("price", "NaN", "price: NaN does not fit decimal(10,2)"),
    ("price", "-Infinity", "price: -Infinity does not fit decimal(10,2)"),
    ("price", "1.234", "price: 1.234 does not fit decimal(10,2)"),
    ("day", "infinity", "day: infinity does not fit date"),
    ("day", "0044-03-15 BC", "day: 0044-03-15 BC does not fit date"),
    ("at", "-infinity", "at: -infinity does not fit timestamp"),
    ("at", "0044-03-15 12:00+00 BC", "at: 0044-03-15 12:00:00+00 BC does not fit timestamp"),
    ("at", "12017-01-01 00:00+00", "at: 12017-01-01 00:00:00+00 does not fit timestamp"),
    ("plain", "infinity", "plain: infinity does not fit timestamp"),
]
SQLITE = [
    ("price", "NaN", "price: NaN does not fit decimal(10,2)"),
    ("price", "dear", "price: dear does not fit decimal(10,2)"),
    ("day", "infinity", "day: infinity does not fit date"),
    ("at", "0044-03-15 BC", "at: 0044-03-15 BC does not fit timestamp"),
    ("at", 7, "at: 7 does not fit timestamp"),
    ("units", "many", "units: many does not fit int64"),
    ("units", 1.5, "units: 1.5 does not fit int64"),
    ("word", b"\x00\xff", "word: b'\\x00\\xff' does not fit string"),
]
SUBJECTS = (
    "trigger postgresql", "wal postgresql", "cursor postgresql", "trigger sqlite", "cursor sqlite"
)  # fmt: skip
SUITE = {
    "expectations": [
        {
            "type": "expect_column_values_to_not_be_null",
            "kwargs": {"column": "price"},
            "why": "everything has a price",
        }
    ]
}


@pytest.fixture(params=SUBJECTS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Goods]:
    with goods(request, tmp_path) as made:
        place = 1 if made.dialect == "postgresql" else 2
        made.create(", ".join(f"{name} {each[place]}" for name, each in COLUMNS.items()))
        made.declare({name: each[0] for name, each in COLUMNS.items()})
        yield made


def hostile(shop: Goods) -> list[tuple[str, Any, str]]:
    return POSTGRES if shop.dialect == "postgresql" else SQLITE


def put(shop: Goods, number: int, **values: Any) -> None:
    shop.put(number, **{name: each[3] for name, each in COLUMNS.items()} | values)


def write(shop: Goods, first: int) -> dict[int, tuple[str, str]]:
    """A sound row and every hostile one; the latter's column and what is to be said of them."""
    put(shop, first)
    expected = {}
    for number, (column, value, reason) in enumerate(hostile(shop), first + 1):
        put(shop, number, **{column: value})
        expected[number] = (column, reason)
    return expected


def validated(shop: Goods) -> tuple[validate.Validated, list[dict[str, Any]], dict[int, str]]:
    """The counts of the last interval, its valid rows and the reasons of the quarantined ones."""
    folder = shop.folder / "expectations"
    (folder / shop.shop.shop).mkdir(parents=True, exist_ok=True)
    (folder / shop.shop.shop / "goods.yaml").write_text(yaml.safe_dump(SUITE))
    run = replace(shop.run, settings=shop.settings.model_copy(update={"expectations": folder}))
    counts = validate.run(run, "goods")
    quarantined = run.lake.read("quarantine/goods", [run.interval])
    reasons = dict(
        zip(quarantined["id"].to_pylist(), quarantined[REASONS].to_pylist(), strict=True)
    )
    return counts, run.lake.read("valid/goods", [run.interval]).to_pylist(), reasons


@pytest.mark.parametrize("fast", [True, False], ids=["", "sqlalchemy"])
@pytest.mark.parametrize("present", [True, False], ids=["rows present", "changes"])
def test_what_does_not_fit_is_quarantined_with_its_value(
    shop: Goods, present: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        if (shop.capture, shop.dialect) != ("cursor", "postgresql"):
            pytest.skip("has one way to read")
        monkeypatch.setattr(adbc, "driver", lambda: None)
    expected = write(shop, 1) if present else {}
    shop.install()
    if not present:
        shop.take()
        expected = write(shop, 1)
    rows = {row["id"]: row for row in shop.take().to_pylist()}
    assert rows.keys() == {1, *expected}
    assert rows[1][MISFITS] is None
    for number, (column, reason) in expected.items():
        odd = rows[number]
        assert odd[MISFITS] == reason
        assert odd[column] is None
        assert {n: odd[n] for n in COLUMNS if n != column} == {
            n: rows[1][n] for n in COLUMNS if n != column
        }
    counts, valid, reasons = validated(shop)
    assert reasons == {number: reason for number, (_, reason) in expected.items()}
    assert [row["id"] for row in valid] == [1]
    assert MISFITS not in valid[0]
    assert (counts.extracted, counts.valid, counts.quarantined) == (
        len(rows), 1, len(expected)
    )  # fmt: skip
    assert counts.duplicates == 0


def test_a_row_that_was_mended_or_deleted_goes_on(shop: Goods) -> None:
    shop.install()
    (column, value, reason), *_ = hostile(shop)
    for number in (1, 2):
        put(shop, number, **{column: value})
    touched = ", touched = " + {"postgresql": "clock_timestamp()"}.get(
        shop.dialect, "strftime('%Y-%m-%d %H:%M:%f', 'now')"
    )
    shop.take()
    assert validated(shop)[2] == {1: reason, 2: reason}
    more = touched if shop.capture == "cursor" else ""
    shop.execute(f"UPDATE {shop.name} SET {column} = 2.5{more} WHERE id = 1", ())
    if shop.capture != "cursor":
        shop.execute(f"DELETE FROM {shop.name} WHERE id = 2", ())
    shop.take()
    _, valid, reasons = validated(shop)
    assert reasons == {}
    ops = {row["id"]: row[OP] for row in valid}
    assert ops == ({1: "update"} if shop.capture == "cursor" else {1: "update", 2: "delete"})


def test_the_log_says_what_did_not_fit(shop: Goods, caplog: pytest.LogCaptureFixture) -> None:
    shop.install()
    (column, value, reason), *_ = hostile(shop)
    put(shop, 1, **{column: value})
    shop.take()
    assert reason in caplog.text
    assert shop.run.ledger.manifests("extract", "goods")[-1].details["misfits"] == 1


def test_a_lost_partition_comes_back_with_what_did_not_fit(shop: Goods) -> None:
    if shop.capture == "wal":
        pytest.skip("a log is given up once it is read")
    shop.install()
    expected = write(shop, 1)
    shop.take()
    run = shop.run
    before = run.lake.read("changes/goods").sort_by("_position")
    run.lake.remove("changes/goods", [run.interval.key])
    extract.run(run, "goods")
    again = run.lake.read("changes/goods").sort_by("_position")
    assert again.select(before.column_names) == before
    assert again[MISFITS].null_count == again.num_rows - len(expected)
    assert maintain.verify(Installation(run.settings, run.shop), table="goods").faults == ()


def test_a_personal_value_is_in_no_reason(shop: Goods) -> None:
    if shop.dialect != "sqlite":
        pytest.skip("a text column holds texts alone")
    shop.table["personal"] = {"word": "pseudonymise"}
    put(shop, 1, word=b"secret\xff")
    shop.install()
    (row,) = shop.take().to_pylist()
    assert row[MISFITS] == "word: a personal value does not fit string"
    assert row["word"] is None


def test_a_row_stamped_in_the_far_future_is_named(
    shop: Goods, caplog: pytest.LogCaptureFixture
) -> None:
    if shop.capture == "wal":
        pytest.skip("the server stamps its log")
    shop.table["columns"] |= {"at": "timestamp"}
    time = "touched" if shop.capture == "cursor" else "at"
    if shop.capture == "trigger":
        shop.table["commit_time"] = "at"
    shop.install()
    put(shop, 1)
    put(shop, 2)
    shop.execute(f"UPDATE {shop.name} SET {time} = '2999-01-02 10:00:00' WHERE id = 2", ())
    shop.take()
    assert "goods 2 at 2999-01-02" in caplog.text
    assert "goods 1" not in caplog.text
    states = freshness.sources(replace(shop.run, shop=shop.shop.part("goods")))
    assert [text[:21] for text in states[0].ahead] == ["goods 2 at 2999-01-02"]
    shop.execute(f"UPDATE {shop.name} SET {time} = '2017-01-02 10:00:00' WHERE id = 2", ())
    states = freshness.sources(replace(shop.run, shop=shop.shop.part("goods")))
    assert states[0].ahead == ()
