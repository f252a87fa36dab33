"""Trigger capture on a real MariaDB and on SQLite: what both promise."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import extract
from pipelines.extract import stage
from pipelines.inspect import freshness
from pipelines.shared.errors import CaptureMissing, SchemaDrift
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.run import Installation, Run
from tests.extract.trigger.trigger_shop import TriggerShop, in_mariadb, in_sqlite, settings_for

OPENING = utc("2017-01-01")


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.services)])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TriggerShop]:
    if request.param == "sqlite":
        with in_sqlite(tmp_path) as shop:
            yield shop
    else:
        with in_mariadb(request.getfixturevalue("mariadb")) as shop:
            yield shop


def objects(web: TriggerShop) -> set[Any]:
    """Everything that the database holds, by name."""
    if web.hole == "?":
        return set(web.run("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite%'"))
    schema = web.shop.source.schema_name
    return set(
        web.run(
            "SELECT table_name FROM information_schema.tables "
            f"WHERE table_schema = '{schema}' UNION ALL SELECT trigger_name FROM "
            f"information_schema.triggers WHERE trigger_schema = '{schema}'"
        )
    )


def test_rows_found_are_the_first_changes(web: TriggerShop) -> None:
    web.run("INSERT INTO articles VALUES ('b', 'tea', NULL, 1), ('a', '', 'x', 2)")
    assert web.install(OPENING) == sorted(web.shop.tables)
    web.run("INSERT INTO articles VALUES ('c', 'tea', NULL, 1)")
    changes, _ = web.take()
    assert changes["sku"].to_pylist() == ["a", "b", "c"]
    assert changes["_op"].to_pylist() == ["insert"] * 3
    assert changes["_committed_at"].to_pylist()[:2] == [OPENING] * 2
    age = web.source().clock() - changes["_committed_at"][2].as_py()
    assert dt.timedelta(0) <= age < dt.timedelta(minutes=5)


def test_installing_twice_is_installing_once_and_removing_leaves_no_trace(
    web: TriggerShop,
) -> None:
    before = objects(web)
    web.run("INSERT INTO articles VALUES ('a', 'tea', NULL, 1)")
    web.install()
    assert web.install() == []
    assert web.ops() == [("insert", "a")]
    assert extract.check(web.url, web.shop) == []
    extract.remove(web.url, web.shop)
    extract.remove(web.url, web.shop)
    assert objects(web) == before
    web.run("INSERT INTO articles VALUES ('b', 'tea', NULL, 1)")
    assert "not captured" in extract.check(web.url, web.shop)[0]


def test_each_kind_of_statement(web: TriggerShop) -> None:
    web.install()
    web.run(
        "INSERT INTO articles (sku) VALUES ('a'), ('b'), ('c'), ('d')",
        "UPDATE articles SET kind = 'tea' WHERE sku IN ('a', 'b')",
        "UPDATE articles SET kind = 'tea'",  # a and b stay as they are
        "DELETE FROM articles WHERE sku > 'b'",
        "REPLACE INTO articles (sku, kind) VALUES ('a', 'coffee')",
        "REPLACE INTO articles (sku, kind) VALUES ('e', 'coffee')",
        "UPDATE articles SET sku = 'z' WHERE sku = 'a'",
        "UPDATE articles SET sku = 'Z' WHERE sku = 'z'",
        "UPDATE articles SET sku = 'none' WHERE sku = 'gone'",
        "DELETE FROM articles",
    )
    ops = web.ops()
    assert ops[:8] == [
        *(("insert", sku) for sku in "abcd"),
        ("update", "a"), ("update", "b"),
        ("update", "c"), ("update", "d"),
    ]  # fmt: skip
    # A statement gives no order to its rows.
    assert sorted(ops[8:10]) == [("delete", "c"), ("delete", "d")]
    replaced = [("delete", "a"), ("insert", "a")] if web.hole == "%s" else [("update", "a")]
    assert ops[10:-3] == [
        *replaced,
        ("insert", "e"),
        ("delete", "a"), ("insert", "z"),
        ("delete", "z"), ("insert", "Z"),
    ]  # fmt: skip
    assert sorted(ops[-3:]) == [("delete", "Z"), ("delete", "b"), ("delete", "e")]


def test_an_upsert_is_what_it_did(web: TriggerShop) -> None:
    web.install()
    tail = (
        "ON DUPLICATE KEY UPDATE kind = VALUES(kind)"
        if web.hole == "%s"
        else "ON CONFLICT (sku) DO UPDATE SET kind = excluded.kind"
    )
    for kind in ("tea", "tea", "coffee"):
        web.run(f"INSERT INTO articles (sku, kind) VALUES ('a', '{kind}') {tail}")
    ignore = "IGNORE" if web.hole == "%s" else "OR IGNORE"
    web.run(f"INSERT {ignore} INTO articles (sku, kind) VALUES ('a', 'x'), ('b', 'y')")
    assert web.ops() == [("insert", "a"), ("update", "a"), ("insert", "b")]


def test_a_large_value_arrives_whole(web: TriggerShop) -> None:
    web.install()
    db = web.connect()
    text = "ö🍵" * 350_000
    for sku in "abc":
        db.cursor().execute(
            f"INSERT INTO articles (sku, kind) VALUES ({web.hole}, {web.hole})", (sku, text + sku)
        )
    assert [len(text.encode()) > 1 << 20, web.take()[0]["kind"].to_pylist()] == [
        True, [text + sku for sku in "abc"]
    ]  # fmt: skip


def test_personal_values_stay_out(web: TriggerShop) -> None:
    web.install()
    web.run("INSERT INTO users VALUES ('u2', 'bob@example.org', 'Ulm'), ('u3', NULL, NULL)")
    web.run("UPDATE users SET email = 'new@example.org'")
    stored = [each for row in web.run("SELECT * FROM freshrank_tiny_changes_users") for each in row]
    assert {"u2", "u3"} < set(stored)
    assert not {"bob@example.org", "new@example.org"} & set(stored)
    changes, _ = web.take(table="users")
    pseudonym = hmac.new(b"a key for tests", b"Ulm", hashlib.sha256).hexdigest()
    assert changes["city"].to_pylist() == [pseudonym, None]


@pytest.mark.parametrize("damage", ["dropped", "another table"])
def test_damaged_capture_stops_and_catches_up(web: TriggerShop, damage: str) -> None:
    web.run("INSERT INTO articles (sku) VALUES ('a'), ('b'), ('c')")
    web.install()
    _, position = web.take()
    web.run("UPDATE articles SET kind = 'seen' WHERE sku = 'c'")
    if damage == "dropped":
        web.run("DROP TRIGGER freshrank_tiny_articles_update")
    else:
        like = "SELECT sql FROM sqlite_master WHERE name = 'articles'"
        if web.hole == "%s":
            like = "SHOW CREATE TABLE articles"
        create = web.run(like)[0][-1]
        web.run(
            "ALTER TABLE articles RENAME TO gone", create, "INSERT INTO articles SELECT * FROM gone"
        )
    with pytest.raises(CaptureMissing, match=r"articles was (switched|truncated).*catches up"):
        web.source().check("articles")
    for event in ("insert", "update", "delete"):
        web.run(f"DROP TRIGGER IF EXISTS freshrank_tiny_articles_{event}")
    web.run(
        "DELETE FROM articles WHERE sku = 'a'",
        "UPDATE articles SET kind = 'missed' WHERE sku = 'b'",
        "INSERT INTO articles (sku) VALUES ('d')",
    )
    assert web.install() == ["articles"]
    after, _ = web.take(after=position, before="2101-01-01")
    assert after["_op"].to_pylist()[1:] == ["delete", "update", "insert"]
    assert after["sku"].to_pylist() == ["c", "a", "b", "d"]
    assert extract.check(web.url, web.shop) == []


def test_rows_cannot_be_taken_as_of_a_time_before_known_changes(web: TriggerShop) -> None:
    web.install()
    web.run(
        "INSERT INTO articles (sku) VALUES ('a')", "DROP TRIGGER freshrank_tiny_articles_update"
    )
    with pytest.raises(CaptureMissing, match="capture remove"):
        web.install(OPENING)


def test_a_declaration_that_changes_is_followed(web: TriggerShop) -> None:
    before = web.shop
    table = before.tables["articles"]
    columns = {name: kind for name, kind in table.columns.items() if name != "maker"}
    fewer = table.model_copy(update={"columns": columns, "ignore": ["maker"]})
    web.run("INSERT INTO articles VALUES ('a', 'tea', 'm', 1), ('b', 'tea', NULL, 1)")
    web.shop = before.model_copy(update={"tables": {**before.tables, "articles": fewer}})
    web.install()
    web.shop = before
    assert web.install() == ["articles"]
    assert web.ops() == [("insert", "a"), ("insert", "b"), ("update", "a")]
    web.shop = before.model_copy(
        update={"tables": {k: t for k, t in before.tables.items() if k != "shown"}}
    )
    assert web.install() == []
    assert not any("shown" in str(name) and "freshrank" in str(name) for name in objects(web))


def test_a_table_that_departs_from_its_declaration_is_named(web: TriggerShop) -> None:
    web.install()
    web.run("ALTER TABLE articles ADD COLUMN discount integer")
    with pytest.raises(SchemaDrift, match=r"articles\.discount is new"):
        web.source().check("articles")
    with pytest.raises(SchemaDrift, match=r"articles\.discount is new"):
        web.install()


def test_what_was_rolled_back_never_was(web: TriggerShop) -> None:
    web.install()
    db = web.connect()
    web.run("BEGIN", "INSERT INTO articles (sku) VALUES ('never')", "ROLLBACK", db=db)
    web.run(
        "BEGIN", "INSERT INTO articles (sku) VALUES ('a')", "SAVEPOINT s",
        "INSERT INTO articles (sku) VALUES ('b')", "ROLLBACK TO s",
        "INSERT INTO articles (sku) VALUES ('c')", "COMMIT", db=db,
    )  # fmt: skip
    assert web.ops() == [("insert", "a"), ("insert", "c")]


def test_the_stage_and_the_count_of_what_waits(web: TriggerShop, tmp_path: Path) -> None:
    web.run("INSERT INTO articles (sku) VALUES ('a'), ('b')")
    web.install(OPENING)
    db = web.connect()
    web.stamp(db, utc("2017-01-10"))
    web.run("INSERT INTO articles (sku) VALUES ('c')", db=db)
    web.stamp(db, None)
    secrets = settings_for(tmp_path, web.url)
    run = Run(secrets, web.shop, Interval.of("2017-01-02", "2017-01-09"))
    assert stage.run(run, "articles").inserts == 2
    (state,) = freshness.sources(Installation(secrets, web.shop))
    assert {each.table: each.pending_rows for each in state.tables}["articles"] == 1
    later = Run(secrets, web.shop, Interval.of("2017-01-09", "2017-01-16"))
    assert stage.run(later, "articles").rows == 1
    assert stage.run(later, "articles").rows == 1
    run.lake.replace("changes/articles", later.interval, _nothing(run))
    assert stage.run(later, "articles").rows == 1  # restored
    assert abs(stage.clock(run) - web.source().clock()) < dt.timedelta(minutes=1)


def _nothing(run: Run) -> Any:
    import pyarrow as pa

    from pipelines.extract.source import change_schema

    return pa.RecordBatchReader.from_batches(change_schema(run.shop.tables["articles"]), [])


def test_a_bulk_delete_is_every_row_once(web: TriggerShop) -> None:
    web.install()
    db = web.connect()
    db.cursor().execute("BEGIN")
    db.cursor().executemany(
        f"INSERT INTO articles (sku, amount) VALUES ({web.hole}, 1)",
        [(f"{n:05}",) for n in range(10_000)],
    )
    db.cursor().execute("COMMIT")
    inserted, position = web.take()
    web.run("DELETE FROM articles")
    deleted, _ = web.take("2101-01-01", position)
    assert inserted.num_rows == deleted.num_rows == 10_000
    assert set(deleted["_op"].to_pylist()) == {"delete"}
    assert sorted(deleted["sku"].to_pylist()) == sorted(inserted["sku"].to_pylist())


def test_no_row_slips_between_the_rows_found_and_the_first_change(web: TriggerShop) -> None:
    """Writers go on while capture is installed."""
    stop = threading.Event()

    def write(writer: int) -> None:
        db, number = web.connect(), 0
        while not stop.is_set():
            number += 1
            web.run(
                "BEGIN" if web.hole == "%s" else "BEGIN IMMEDIATE",
                *(f"INSERT INTO articles (sku) VALUES ('{writer}.{number}.{p}')" for p in "ab"),
                f"UPDATE articles SET kind = 'x' WHERE sku = '{writer}.{number}.a'",
                f"DELETE FROM articles WHERE sku = '{writer}.{number - 9}.b'",
                "COMMIT",
                db=db,
            )

    writers = [threading.Thread(target=write, args=[each]) for each in range(3)]
    for each in writers:
        each.start()
    time.sleep(0.5)
    web.install()
    time.sleep(0.5)
    stop.set()
    for each in writers:
        each.join()
    changes, _ = web.take()
    present: dict[str, str | None] = {}
    for row in changes.to_pylist():
        assert (row["_op"] == "insert") == (row["sku"] not in present)
        if row["_op"] == "delete":
            del present[row["sku"]]
        else:
            present[row["sku"]] = row["kind"]
    assert len(present) > 20
    assert present == dict(web.run("SELECT sku, kind FROM articles"))


def test_extraction_beside_concurrent_writers_takes_everything_once(web: TriggerShop) -> None:
    web.install()
    stop = threading.Event()

    def write(writer: int) -> None:
        db, number = web.connect(), 0
        while not stop.is_set():
            number += 1
            sku = f"{writer}.{number}"
            begin = "BEGIN" if web.hole == "%s" else "BEGIN IMMEDIATE"
            web.run(begin, f"INSERT INTO articles (sku) VALUES ('{sku}')", db=db)
            time.sleep(0.002 * (writer + 1))
            end = "ROLLBACK" if number % 5 == 0 else "COMMIT"
            web.run(f"UPDATE articles SET kind = 'x' WHERE sku = '{sku}'", end, db=db)

    writers = [threading.Thread(target=write, args=[each]) for each in range(3)]
    for each in writers:
        each.start()
    position: Any = None
    places, ops, whole = [], [], []
    turn, last = 0, None
    while turn != last:
        turn += 1
        if last is None and turn >= 20 and len(places) > 60:
            stop.set()
            for each in writers:
                each.join()
            last = turn + 2
        now = web.source().clock() + dt.timedelta(seconds=turn % 3 - 1)
        before = max(now, utc(position["end"])) if position else now
        rows, position = web.take(utc("2100-01-01") if turn == last else before, position)
        places += rows["_position"].to_pylist()
        ops += rows["_op"].to_pylist()
        whole.append(sorted(rows["sku"].to_pylist()))
    assert len(places) == len(set(places))
    ((present,),) = web.run("SELECT count(*) FROM articles")
    assert (ops.count("insert"), ops.count("update")) == (present, present)
    if web.hole == "%s":
        for skus in whole:
            assert skus[::2] == skus[1::2]  # both changes of each transaction


OPERATION = st.tuples(
    st.sampled_from(["insert", "update", "delete", "rekey", "replace"]),
    st.sampled_from("aAbc"),
    st.sampled_from(["NULL", "'0.00'", "'1.50'", "'-2.25'"]),
)
BLOCK = st.tuples(st.lists(OPERATION, max_size=6), st.integers(0, 20), st.booleans(), st.booleans())


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(blocks=st.lists(BLOCK, max_size=8))
def test_the_folded_changes_are_the_table(web: TriggerShop, blocks: Any) -> None:
    """Random transactions, some rolled back, cut anywhere: the log, folded, is the table."""
    articles = {"articles": web.shop.tables["articles"]}
    web.shop = web.shop.model_copy(update={"tables": articles})
    extract.remove(web.url, web.shop)
    web.run("DELETE FROM articles")
    web.install(OPENING)
    position: Any = None
    end = utc("2017-01-09")
    seen: list[int] = []
    last: dict[str, Any] = {}

    def fold() -> None:
        nonlocal position
        rows, position = web.take(end, position)
        for row in rows.to_pylist():
            seen.append(row["_position"])
            if row["_position"] > last.get(row["sku"], {"_position": 0})["_position"]:
                last[row["sku"]] = row

    for operations, day, kept, cut in blocks:
        db = web.connect()
        web.run("BEGIN", db=db)
        web.stamp(db, utc("2017-01-01") + dt.timedelta(days=day))
        for operation, sku, amount in operations:
            web.run(_statement(operation, sku, amount, web.hole), db=db)
        web.stamp(db, None)
        web.run("COMMIT" if kept else "ROLLBACK", db=db)
        db.close()
        if cut:
            fold()
            end += dt.timedelta(days=3)
    end = utc("2017-03-01")
    fold()
    assert len(seen) == len(set(seen))
    live = {sku: row["amount"] for sku, row in last.items() if row["_op"] != "delete"}
    assert live == {
        sku: None if amount is None else Decimal(str(amount)).quantize(Decimal("0.01"))
        for sku, amount in web.run("SELECT sku, amount FROM articles")
    }


def _statement(operation: str, sku: str, amount: str, hole: str) -> str:
    ignore = "IGNORE" if hole == "%s" else "OR IGNORE"
    return {
        "insert": f"INSERT {ignore} INTO articles (sku, amount) VALUES ('{sku}', {amount})",
        "update": f"UPDATE articles SET amount = {amount} WHERE sku = '{sku}'",
        "delete": f"DELETE FROM articles WHERE sku = '{sku}'",
        "rekey": f"UPDATE {ignore} articles SET sku = 'd' WHERE sku = '{sku}'",
        "replace": f"REPLACE INTO articles (sku, amount) VALUES ('{sku}', {amount})",
    }[operation]


def test_a_position_of_another_capture_mode_is_refused(web: TriggerShop) -> None:
    web.install()
    with pytest.raises(CaptureMissing, match="articles comes from another capture mode"):
        web.take(after={"snapshot": "1:2:", "end": "2017-01-09", "log": "x"})


def test_a_table_captured_afresh_begins_with_every_row(web: TriggerShop) -> None:
    web.install()
    web.run("INSERT INTO articles (sku) VALUES ('a')")
    _, position = web.take()
    extract.remove(web.url, web.shop)
    web.install()
    rows, _ = web.take("2101-01-01", position)
    assert rows["sku"].to_pylist() == ["a"]


def test_other_shops_names_are_left_alone(web: TriggerShop) -> None:
    web.install()
    other = web.shop.model_copy(update={"shop": "tiny_two"})
    assert extract.install(web.url, other) == sorted(web.shop.tables)
    extract.remove(web.url, web.shop)
    web.run("INSERT INTO articles (sku) VALUES ('a')")
    assert extract.check(web.url, other) == []
