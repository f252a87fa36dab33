"""The slot and the publication: made, checked, moved on, lost and removed on real servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers.postgres import connect
from local.servers.postgres import PostgresServer
from pipelines import extract
from pipelines.extract.wal import install, slot
from pipelines.extract.wal.source import WalSource
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import (
    CaptureMissing,
    CorruptPartition,
    SettingsError,
    SourceUnavailable,
)
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.run import Run
from tests.extract.postgres_shop import database
from tests.extract.wal.wal_shop import WalShop, captured, wal_shop

pytestmark = pytest.mark.services

WEEKS = [Interval.of("2017-01-02", "2017-01-09"), Interval.of("2017-01-09", "2017-01-16")]
OURS = "pg_replication_slots WHERE database = current_database() AND NOT temporary"
ROW = "INSERT INTO web.articles VALUES ('{}', 'tea', NULL, 1)"


@pytest.fixture(params=["logical_postgres", "debian_postgres"])
def server(request: pytest.FixtureRequest) -> PostgresServer:
    found: PostgresServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def shop(server: PostgresServer, tmp_path: Path) -> Iterator[WalShop]:
    with captured(server, tmp_path) as made:
        yield made


def identities(shop: WalShop) -> dict[str, str]:
    query = (
        "SELECT relname, relreplident::text FROM pg_class "
        "WHERE relnamespace = 'web'::regnamespace AND relkind = 'r'"
    )
    return dict(shop.db.execute(query).fetchall())


def confirmed(shop: WalShop) -> int:
    query = f"SELECT confirmed_flush_lsn - '0/0' FROM {OURS}"
    return int(shop.db.execute(query).fetchone()[0])


def test_installing_twice_is_installing_once(shop: WalShop) -> None:
    assert shop.slots() == 1
    assert set(identities(shop).values()) == {"f"}
    assert shop.install() == []
    assert shop.slots() == 1
    assert extract.check(shop.url, shop.shop) == []


def test_removing_leaves_the_shop_as_it_was(shop: WalShop) -> None:
    extract.remove(shop.url, shop.shop)
    shop.run("ALTER TABLE web.users REPLICA IDENTITY NOTHING")
    shop.run("ALTER TABLE web.articles REPLICA IDENTITY USING INDEX articles_pkey")
    shop.run("ALTER TABLE web.shown REPLICA IDENTITY FULL")
    before = identities(shop)
    assert set(before.values()) == {"d", "i", "n", "f"}
    shop.install()
    shop.run("ALTER TABLE web.users REPLICA IDENTITY DEFAULT")
    shop.install()  # What it remembers is what was there at first.
    extract.remove(shop.url, shop.shop)
    extract.remove(shop.url, shop.shop)
    assert identities(shop) == before
    assert shop.slots() == 0
    assert shop.db.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
    assert "not captured; run `python -m pipelines capture install`" in str(
        extract.check(shop.url, shop.shop)
    )


def test_a_server_without_a_logical_log_is_told_what_to_set(postgres: PostgresServer) -> None:
    with database(postgres) as url:
        with pytest.raises(SettingsError, match=r"wal_level is replica.*wal_level = logical"):
            extract.install(url, wal_shop())
        with connect(url) as db:
            assert db.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)


def test_an_account_without_the_right_is_told_which(shop: WalShop, server: PostgresServer) -> None:
    shop.run("CREATE ROLE clerk LOGIN PASSWORD 'x'", "GRANT USAGE ON SCHEMA web TO clerk")
    shop.run("GRANT SELECT ON ALL TABLES IN SCHEMA web TO clerk")
    url = shop.url.replace(f"freshrank:{server.password}", "clerk:x")
    try:
        source = WalSource(url, shop.shop, shop.settings)
        with pytest.raises(CaptureMissing, match="ALTER ROLE … REPLICATION"):
            source.changes("articles", shop.now(), None).__enter__()
        shop.run("ALTER ROLE clerk REPLICATION", ROW.format("a"))
        with source.changes("articles", shop.now(), None) as taken:
            assert sum(batch.num_rows for batch in taken.batches) == 1
    finally:
        shop.run("DROP OWNED BY clerk", "DROP ROLE clerk")


def test_installing_does_not_wait_for_ever(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "LOCK_TIMEOUT", "300ms")
    with captured(server, tmp_path) as shop, connect(shop.url) as other:
        extract.remove(shop.url, shop.shop)
        with other.transaction():
            other.execute("CREATE TEMPORARY TABLE open_work (n int)")
            with pytest.raises(SourceUnavailable, match="transactions open"):
                shop.install()
            assert "not captured" in str(extract.check(shop.url, shop.shop))
        shop.install()
        assert extract.check(shop.url, shop.shop) == []


def test_an_interval_before_capture_began_names_the_first_it_can_give(shop: WalShop) -> None:
    with pytest.raises(CaptureMissing, match=r"the first interval they can be given for is \[20"):
        shop.take(WEEKS[0].end)


def test_the_slot_moves_on_when_every_table_is_on_record(shop: WalShop) -> None:
    extract.remove(shop.url, shop.shop)
    shop.run(ROW.format("a"))
    extract.install(shop.url, shop.shop, utc("2017-01-03"))
    began = confirmed(shop)
    runs = [Run(shop.settings, shop.shop, week) for week in WEEKS]
    *early, last = sorted(shop.shop.tables)
    for table in early:
        extract.run(runs[0], table)
        assert confirmed(shop) == began
    extract.run(runs[0], last)
    moved = confirmed(shop)
    assert moved > began
    stored = runs[0].lake.read("changes/articles", [WEEKS[0]])
    assert stored["sku"].to_pylist() == ["a"]
    assert stored["_committed_at"].to_pylist() == [utc("2017-01-03")]
    assert extract.run(runs[0], "articles").rows == 1
    assert [extract.run(runs[1], table).rows for table in sorted(shop.shop.tables)] == [0] * 4
    assert shop.slots() == 1


def test_released_changes_are_not_given_again(shop: WalShop) -> None:
    starts = {table: shop.take(table=table)[1] for table in shop.shop.tables}
    shop.run(ROW.format("a"))
    end = shop.now()
    ends = {table: shop.take(end, start, None, table)[1] for table, start in starts.items()}
    slot.release(shop.url, shop.shop, ends | {"users": starts["users"]})
    assert shop.take(end, starts["articles"], ends["articles"])[0].num_rows == 1
    slot.release(shop.url, shop.shop, {**ends, "users": {}})
    assert confirmed(shop) < ends["users"]["lsn"]
    slot.release(shop.url, shop.shop, ends)
    assert confirmed(shop) == ends["users"]["lsn"]
    with pytest.raises(CorruptPartition, match="backup of the lake"):
        shop.take(end, starts["articles"], ends["articles"])
    with pytest.raises(CaptureMissing, match=r"somebody moved it.*capture remove"):
        shop.take(end, starts["articles"])
    with pytest.raises(CorruptPartition, match="rows present when capture began"):
        shop.take(end, None, ends["articles"])
    shop.run(ROW.format("b"))
    assert shop.take(None, ends["articles"])[0]["sku"].to_pylist() == ["b"]


def test_a_slot_that_is_gone_is_named_and_begun_afresh(shop: WalShop) -> None:
    shop.run(ROW.format("a"))
    _, start = shop.take()
    shop.run(f"SELECT pg_drop_replication_slot(slot_name) FROM {OURS}")
    shop.run(ROW.format("missed"))
    gone = pytest.raises(CaptureMissing, match=r"slot freshrank_tiny_\w{8} is gone")
    with gone:
        shop.source.check("articles")
    with gone:
        shop.take(None, start)
    assert shop.install() == sorted(shop.shop.tables)
    shop.run(ROW.format("b"))
    again, position = shop.take(None, start)
    assert sorted(again["sku"].to_pylist()) == ["a", "b", "missed"]
    assert again["_position"].to_pylist()[0] >= start["next"]
    assert position["log"] != start["log"]


def test_a_slot_that_the_server_gave_up_is_named(shop: WalShop) -> None:
    try:
        shop.db.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        shop.db.execute("SELECT pg_reload_conf()")
        for _ in range(4):
            shop.run("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))")
            shop.db.execute("SELECT pg_switch_wal()")
        shop.db.execute("CHECKPOINT")
        (finding,) = extract.check(shop.url, shop.shop)
        assert "gave up the replication slot" in finding
        assert "capture remove`, then `capture install`" in finding
        with pytest.raises(CaptureMissing, match="gave up"):
            shop.take()
    finally:
        shop.db.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        shop.db.execute("SELECT pg_reload_conf()")
    assert shop.install() == sorted(shop.shop.tables)
    assert extract.check(shop.url, shop.shop) == []


def test_a_slot_that_holds_back_too_much_is_reported(
    shop: WalShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "HELD_LIMIT", 1 << 20)
    shop.run("SELECT pg_logical_emit_message(false, 'x', repeat('x', 2000000))")
    (finding,) = extract.check(shop.url, shop.shop)
    # Not quite all: the last page may not be flushed yet.
    held = re.search(r"holds back ([\d,]+) bytes", finding)
    assert held is not None
    assert 1_900_000 < int(held[1].replace(",", "")) < 4_000_000
    assert "limit 1,048,576" in finding
    ends = {table: shop.take(table=table)[1] for table in shop.shop.tables}
    slot.release(shop.url, shop.shop, ends)
    assert min(each["lsn"] for each in ends.values()) == confirmed(shop)


def test_a_truncated_table_is_named(shop: WalShop) -> None:
    shop.run(ROW.format("a"))
    _, start = shop.take()
    _, other = shop.take(table="users")
    before = shop.now()
    shop.run("TRUNCATE web.articles")
    assert shop.take(before, start)[0].num_rows == 0
    with pytest.raises(CaptureMissing, match=r"articles was truncated.*capture remove"):
        shop.take(None, start)
    with pytest.raises(CaptureMissing, match="articles was truncated"):
        shop.take(before)
    assert shop.take(None, other, None, "users")[0].num_rows == 0
    assert shop.take()[0].num_rows == 0  # Nothing before this end is missing: no rows are there.


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("DROP TABLE web.articles; CREATE TABLE web.articles (LIKE kept INCLUDING ALL)", "again"),
        ("ALTER TABLE web.articles REPLICA IDENTITY DEFAULT", "REPLICA IDENTITY FULL"),
        ("ALTER PUBLICATION freshrank_tiny DROP TABLE web.articles", "left the publication"),
    ],
)
def test_a_table_that_is_not_captured_any_more_begins_afresh(
    shop: WalShop, damage: str, named: str
) -> None:
    shop.run("CREATE TABLE kept (LIKE web.articles INCLUDING ALL)")
    _, start = shop.take()
    _, other = shop.take(table="users")
    for statement in damage.split("; "):
        shop.run(statement)
    shop.run(ROW.format("missed"))
    with pytest.raises(CaptureMissing, match=named):
        shop.source.check("articles")
    assert len(extract.check(shop.url, shop.shop)) == 1
    assert shop.install() == ["articles"]
    again, position = shop.take(None, start)
    assert again["sku"].to_pylist() == ["missed"]
    shop.run("DELETE FROM web.articles")
    assert shop.take(None, position)[0]["_op"].to_pylist() == ["delete"]
    shop.run("INSERT INTO web.users VALUES ('u')")
    assert shop.take(None, other, None, "users")[0].num_rows == 1


def test_old_rows_that_the_log_lacks_are_named(shop: WalShop) -> None:
    shop.run(ROW.format("a"))
    _, start = shop.take()
    shop.run("ALTER TABLE web.articles REPLICA IDENTITY DEFAULT")
    shop.run("UPDATE web.articles SET amount = 2")
    shop.run("ALTER TABLE web.articles REPLICA IDENTITY FULL")
    with pytest.raises(CaptureMissing, match="without their old rows"):
        shop.take(None, start)


def test_tables_declared_later_join_and_others_leave(shop: WalShop) -> None:
    _, start = shop.take()
    shop.run("CREATE TABLE web.stock (sku text PRIMARY KEY, pieces integer)")
    shop.run("INSERT INTO web.stock VALUES ('a', 1)")
    more = wal_shop({"stock": {"key": ["sku"], "columns": {"sku": "string", "pieces": "int32"}}})
    fewer, shop.shop = shop.shop, more
    assert shop.install() == ["stock"]
    shop.run("UPDATE web.stock SET pieces = 2", ROW.format("b"))
    assert shop.take(table="stock")[0]["pieces"].to_pylist() == [2]
    assert shop.take(None, start)[0]["sku"].to_pylist() == ["b"]
    shop.shop = fewer
    assert shop.install() == []
    assert identities(shop)["stock"] == "d"


def test_a_declared_commit_time_is_refused() -> None:
    declared = wal_shop().model_dump(by_alias=True, mode="python")
    declared["tables"]["actions"]["commit_time"] = "at"
    with pytest.raises(ValueError, match="takes commit times from the server's log"):
        Shop.model_validate(declared)
