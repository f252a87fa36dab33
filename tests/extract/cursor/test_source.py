"""Cursor capture on real databases: every row found, once, with rights to read alone.

The contract suite stamps transactions with commit times of its choice; here a row's time is what
the shop wrote into it, and a row keeps its last version only. So the same promises stand here in
the words of a cursor, with times that the tests write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.extract.cursor import snapshot as cursor_snapshot
from pipelines.extract.cursor.source import CursorSource
from pipelines.extract.source import Position, change_schema
from pipelines.extract.stage import extract as extract_from
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import (
    CaptureMissing,
    CorruptPartition,
    SchemaDrift,
    SourceUnavailable,
)
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings
from tests.extract.cursor.cursor_shop import NUMBERED, TIMED, goods_table, shop_with
from tests.extract.postgres_shop import DECLARED, database

START = utc("2017-01-02")
DATABASES = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.services),
    pytest.param("mariadb", marks=pytest.mark.services),
]


class Goods:
    """The table `goods` of a real database, a writer of it, and a source that reads it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        level = {} if url.startswith("sqlite") else {"isolation_level": "READ COMMITTED"}
        self.engine = sa.create_engine(url, poolclass=sa.NullPool, **level)
        self.table = goods_table(self.engine.dialect.name)
        self.table.create(self.engine)

    def settings(self, **other: Any) -> Settings:
        return Settings(
            lake=str(self.folder / "lake"),
            ledger_url=f"sqlite:///{self.folder}/ledger.db",
            mlflow_uri="",
            shops=DECLARED,
            connections={"tiny": self.url},
            **other,
        )

    def source(self, cursor: dict[str, Any] = TIMED, **other: Any) -> CursorSource:
        return CursorSource(self.url, shop_with(cursor), self.settings(**other))

    def put(self, sku: str, at: float, part: int = 1, **values: Any) -> None:
        """Write a row whose time is so many seconds after the start; its version is the same."""
        with self.engine.begin() as connection:
            self.write(connection, sku, at, part, **values)

    def write(self, connection: Any, sku: str, at: float, part: int = 1, **values: Any) -> None:
        row = {
            "part": part, "sku": sku, "note": None, "amount": None, "gone": False,
            "touched": self.moment(at), "version": int(at),
        } | values  # fmt: skip
        self.erase(connection, sku, part)
        connection.execute(self.table.insert().values(row))

    def erase(self, connection: Any, sku: str, part: int = 1) -> None:
        columns = self.table.c
        connection.execute(self.table.delete().where(columns.part == part, columns.sku == sku))

    def drop(self, sku: str) -> None:
        with self.engine.begin() as connection:
            self.erase(connection, sku)

    def rows(self) -> dict[Any, Any]:
        """What stands in the table and is not marked as gone: key → note and amount."""
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(self.table)).mappings().all()
        return {
            (row["part"], row["sku"]): (row["note"], row["amount"])
            for row in rows
            if not row["gone"]
        }

    def clear(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.table.delete())

    def moment(self, at: float) -> datetime:
        moment = START + timedelta(seconds=at)
        return moment if self.engine.dialect.name == "postgresql" else moment.replace(tzinfo=None)


@pytest.fixture(params=DATABASES)
def goods(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Goods]:
    if request.param == "sqlite":
        yield Goods(f"sqlite:///{tmp_path}/shop.db", tmp_path)
    elif request.param == "postgresql":
        with database(request.getfixturevalue("postgres"), "SELECT 1") as url:
            yield Goods(url, tmp_path)
    else:
        yield Goods(request.getfixturevalue("mariadb_url"), tmp_path)


def take(
    source: CursorSource, until: float = 1e6, after: Position | None = None, upto: Any = None
) -> tuple[pa.Table, Position]:
    before = START + timedelta(seconds=until)
    with source.changes("goods", before, after, upto) as batch:
        table = pa.Table.from_batches(list(batch.batches), batch.schema)
    return table, json.loads(json.dumps(batch.position))


def news(changes: pa.Table) -> list[tuple[str, str]]:
    return list(zip(changes["_op"].to_pylist(), changes["sku"].to_pylist(), strict=True))


def test_inserts_updates_and_soft_deletes_come_once(goods: Goods) -> None:
    source = goods.source()
    goods.put("a", 1, note="old", amount=Decimal("1.50"))
    goods.put("never", 1, gone=True)
    goods.put("b", 2.000001)
    first, position = take(source, 10)
    assert first.schema == change_schema(shop_with(TIMED).tables["goods"])
    assert news(first) == [("insert", "a"), ("insert", "b")]
    assert first["_committed_at"].to_pylist() == [
        START + timedelta(seconds=1), START + timedelta(seconds=2, microseconds=1)
    ]  # fmt: skip
    assert first["_position"].to_pylist() == [(1 << 32) + 1, (1 << 32) + 2]
    goods.put("a", 11, note="new")
    goods.put("b", 12, gone=True)
    goods.put("c", 13)
    second, position = take(source, 20, position)
    assert news(second) == [("update", "a"), ("delete", "b"), ("insert", "c")]
    assert second["_transaction"].to_pylist() == [2] * 3
    assert second["_position"][0].as_py() == (2 << 32) + 1
    assert news(take(source, 30, position)[0]) == []
    goods.put("b", 25, note="again")
    assert news(take(source, 30, position)[0]) == [("insert", "b")]


def test_rows_of_the_future_wait_for_their_interval(goods: Goods) -> None:
    source = goods.source()
    goods.put("now", 9.999999)
    goods.put("at the end", 10)
    taken, position = take(source, 10)
    assert news(taken) == [("insert", "now")]
    assert news(take(source, 20, position)[0]) == [("insert", "at the end")]


def test_rows_that_share_a_cursor_are_not_lost_at_the_boundary(goods: Goods) -> None:
    source = goods.source(TIMED | {"lag_s": 0})
    for number in range(50):
        goods.put(f"early {number:02}", 5)
    first, position = take(source)
    for number in range(50):
        goods.put(f"late {number:02}", 5)
    goods.put("early 07", 5, note="changed within the same tick")
    second, position = take(source, after=position)
    assert first.num_rows == 50
    assert news(second) == [("update", "early 07")] + [
        ("insert", f"late {number:02}") for number in range(50)
    ]
    assert take(source, after=position)[0].num_rows == 0


def test_beyond_the_lag_only_reconciling_finds_a_row(goods: Goods) -> None:
    goods.put("first", 100)
    goods.put("old", 10)
    source, thorough = goods.source(), goods.source(TIMED | {"reconcile": True})
    _, position = take(source)
    goods.put("too late", 39)
    goods.put("old", 11, note="changed too late")
    goods.put("just in time", 40)
    goods.drop("first")
    taken, _ = take(source, after=position)
    assert news(taken) == [("insert", "just in time")]
    taken, position = take(thorough, after=position)
    assert news(taken) == [
        ("insert", "just in time"), ("update", "old"), ("insert", "too late"), ("delete", "first")
    ]  # fmt: skip
    gone = taken.to_pylist()[-1]
    assert (gone["part"], gone["note"], gone["gone"]) == (1, None, None)
    assert START < gone["_committed_at"] < START + timedelta(seconds=1e6)
    assert news(take(thorough, after=position)[0]) == []


def test_a_key_that_comes_back_is_inserted_again(goods: Goods) -> None:
    source = goods.source(TIMED | {"reconcile": True})
    goods.put("a", 1)
    goods.put("b", 100)
    _, position = take(source)
    goods.drop("a")
    taken, position = take(source, after=position)
    assert news(taken) == [("delete", "a")]
    goods.put("a", 1)
    taken, position = take(source, after=position)
    assert news(taken) == [("insert", "a")]
    assert news(take(source, after=position)[0]) == []


def test_a_row_waiting_for_its_interval_is_not_gone(goods: Goods) -> None:
    source = goods.source(TIMED | {"reconcile": True})
    goods.put("a", 1)
    _, position = take(source, 10)
    goods.put("a", 15)
    taken, position = take(source, 12, position)
    assert news(taken) == []
    assert news(take(source, 20, position)[0]) == [("update", "a")]


def test_numbers_are_cursors_too(goods: Goods) -> None:
    source = goods.source(NUMBERED)
    goods.put("a", 100)
    first, position = take(source)
    goods.put("late", 40)
    goods.put("too late", 39)
    goods.put("a", 200, version=2**40)
    second, position = take(source, after=position)
    assert news(first) == [("insert", "a")]
    assert news(second) == [("insert", "late"), ("update", "a")]
    assert (
        second["_committed_at"].to_pylist() == [START + timedelta(seconds=1e6, microseconds=-1)] * 2
    )
    assert news(take(source, after=position)[0]) == []


def test_what_was_written_during_the_extraction_is_taken_by_the_next(goods: Goods) -> None:
    """The upper bound is frozen: writers stay busy between the first row read and the last."""
    if goods.engine.dialect.name == "sqlite":
        with goods.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    for number in range(20):
        goods.put(f"sku {number:02}", number)
    source = goods.source()
    with source.changes("goods", START + timedelta(days=9), None) as taken:
        goods.put("sku 03", 30, note="meanwhile")
        goods.put("new", 31)
        goods.drop("sku 05")
        seen = pa.Table.from_batches(list(taken.batches), taken.schema)
    assert seen.num_rows == 20
    assert seen["note"].null_count == 20
    second, _ = take(source, after=taken.position)
    assert news(second) == [("update", "sku 03"), ("insert", "new")]


def test_a_source_cannot_write(goods: Goods) -> None:
    goods.put("a", 1)
    with (
        pytest.raises((SourceUnavailable, CaptureMissing), match=r"read.?only|READ ONLY"),
        cursor_snapshot.open_snapshot(goods.url, shop_with(TIMED)) as snapshot,
    ):
        snapshot.connection.execute(goods.table.delete())
    assert len(goods.rows()) == 1


def test_a_cursor_without_a_value_is_named(goods: Goods) -> None:
    goods.put("a", 1)
    goods.put("b", 1, touched=None)
    with pytest.raises(SchemaDrift, match=r"goods\.touched is the cursor.*not null"):
        take(goods.source())


def test_many_extractions_keep_a_bounded_position(goods: Goods) -> None:
    source, position, seen = goods.source(), None, []
    for number in range(30):
        goods.put(f"sku {number % 7}", 100 * number)
        goods.put("gone", 100 * number, gone=number % 2 == 1)
        changes, position = take(source, after=position)
        seen += news(changes)
        assert len(json.dumps(position)) < 500
    assert seen.count(("insert", "gone")) == seen.count(("delete", "gone")) == 15
    assert [op for op, sku in seen if sku == "sku 3"] == ["insert"] + ["update"] * 3
    files = list((goods.folder / "lake/tiny/key_index/goods").iterdir())
    assert len(files) <= 12


def test_the_index_of_keys_being_gone_is_named(goods: Goods) -> None:
    goods.put("a", 1)
    _, position = take(goods.source())
    next((goods.folder / "lake/tiny/key_index/goods").iterdir()).unlink()
    with pytest.raises(CorruptPartition, match=r"key_index/goods, lacks 00000001.*backup"):
        take(goods.source(), after=position)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_an_index_in_the_former_folder_is_continued(tmp_path: Path, scheme: str) -> None:
    """Lakes made before have `taken/<table>`; its files are read, then merged and deleted."""
    goods = Goods(f"sqlite:///{tmp_path}/shop.db", tmp_path)
    lake = goods.settings().model_copy(update={"lake": f"{scheme}{tmp_path}/lake"})
    source = CursorSource(goods.url, shop_with(TIMED | {"reconcile": True}), lake)
    positions: list[Any] = [None]
    for number in range(3):
        goods.put(f"sku {number}", number)
        _, position = take(source, after=positions[-1])
        positions.append(position)
    third, _ = take(source, after=positions[2], upto=positions[3])
    index, former = tmp_path / "lake/tiny/key_index", tmp_path / "lake/tiny/taken"
    index.rename(former)
    for died in ("00000004.parquet", "00000003.parquet.part"):
        (former / "goods" / died).write_text("a run of before died here")

    assert take(source, after=positions[2], upto=positions[3])[0].equals(third)
    goods.put("sku 1", 1, note="changed")
    goods.drop("sku 2")
    for _ in range(2):  # the second time after a kill: the first one's position is not on record
        changes, position = take(source, after=positions[3])
        assert news(changes) == [("update", "sku 1"), ("delete", "sku 2")]
    assert sorted(each.name for each in (index / "goods").iterdir()) == ["00000004.parquet"]
    while len(position["files"]) > 1:
        assert news(take(source, after=position)[0]) == []
        _, position = take(source, after=position)
    _, position = take(source, after=position)
    changes, position = take(source, after=position)
    assert news(changes) == []
    assert list((former / "goods").iterdir()) == []
    assert {each.stem for each in (index / "goods").iterdir()} == set(position["files"])
    goods.put("sku 0", 0, note="changed")
    assert news(take(source, after=position)[0]) == [("update", "sku 0")]


def test_a_file_lost_from_the_former_folder_is_named(tmp_path: Path) -> None:
    goods = Goods(f"sqlite:///{tmp_path}/shop.db", tmp_path)
    goods.put("a", 1)
    _, position = take(goods.source())
    (tmp_path / "lake/tiny/key_index").rename(tmp_path / "lake/tiny/taken")
    (tmp_path / "lake/tiny/taken/goods/00000001.parquet").unlink()
    with pytest.raises(CorruptPartition, match=r"lacks 00000001.*backup"):
        take(goods.source(), after=position)


def test_a_position_of_another_capture_mode_or_key_is_refused(goods: Goods) -> None:
    with pytest.raises(CaptureMissing, match=r"goods comes from another capture mode.*go back"):
        take(goods.source(), after={"snapshot": "1:1:", "end": "2017-01-01", "log": "x"})
    _, position = take(goods.source())
    with pytest.raises(SchemaDrift, match="other key or cursor columns"):
        take(goods.source(NUMBERED), after=position)


WEEKS = [Interval.of("2017-01-02", "2017-01-09"), Interval.of("2017-01-09", "2017-01-16")]


def run_of(goods: Goods, week: Interval, shop: Shop) -> Run:
    return Run(goods.settings(), shop, week)


def test_a_lost_partition_is_restored_while_nothing_changed(goods: Goods) -> None:
    shop = shop_with(TIMED)
    goods.put("a", 1)
    goods.put("b", 8 * 86400)
    source = CursorSource(goods.url, shop, goods.settings())
    for week in WEEKS:
        assert extract_from(run_of(goods, week, shop), "goods", source).rows == 1
    run = run_of(goods, WEEKS[1], shop)
    before = run.lake.read("changes/goods", [WEEKS[1]])
    nothing = run.lake.read("changes/goods", []).drop_columns(["interval_start"])
    run.lake.replace("changes/goods", WEEKS[1], nothing)
    extract_from(run, "goods", source)
    assert run.lake.read("changes/goods", [WEEKS[1]]).equals(before)
    goods.put("b", 8 * 86400, note="changed since")
    run.lake.replace("changes/goods", WEEKS[1], nothing)
    with pytest.raises(CorruptPartition, match="backup"):
        extract_from(run, "goods", source)


OPERATION = st.tuples(
    st.sampled_from(["put", "put", "soft", "hard", "late"]),
    st.sampled_from("abcd"),
    st.sampled_from([None, "", "Käse 🧀"]),
    st.sampled_from([0.0, 0.0, 0.000001, 1.0, 45.5]),
)
STEP = st.tuples(st.lists(OPERATION, max_size=6), st.sampled_from([None, 0.0, 0.5, 30.0, 500.0]))


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEP, max_size=8), reconcile=st.booleans(), numbers=st.booleans())
def test_the_folded_changes_are_the_table(
    goods: Goods, steps: Any, reconcile: bool, numbers: bool
) -> None:
    """Random writes, some committed late, cut anywhere: the changes, folded, are the table."""
    goods.clear()
    source = goods.source((NUMBERED if numbers else TIMED) | {"reconcile": reconcile})
    now, position, live = 100.0, None, {}
    last = 0
    for operations, behind in [*steps, ([], 0.0)]:
        for operation, sku, note, later in operations:
            now += later
            if operation == "hard" and reconcile:
                goods.drop(sku)
            elif operation == "late":
                goods.put(f"late {sku}", max(now - 55, 0), note=f"{note} at {now}")
            elif operation != "hard":
                goods.put(sku, now, note=note, gone=operation == "soft")
        if behind is None:
            continue
        until = max(now - behind, 101) + 0.000001 if operations else 1e6
        changes, position = take(source, until, position)
        for change in changes.to_pylist():
            key = (change["part"], change["sku"])
            values = (change["note"], change["amount"])
            assert change["_position"] > last
            last = change["_position"]
            assert change["_committed_at"] < START + timedelta(seconds=until)
            assert (change["_op"] == "insert") == (key not in live)
            live.pop(key, None)
            if change["_op"] != "delete":
                live[key] = values
    assert live == goods.rows()
    assert take(source, after=position)[0].num_rows == 0
