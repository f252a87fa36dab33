"""Trigger capture on a real MariaDB: commits out of order, whole transactions, what is unseen."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from benchmarks.servers import mariadb as mariadb_server
from benchmarks.servers.mariadb import LOOPBACK, MariadbServer
from pipelines import extract
from pipelines.extract.modes import mode
from pipelines.extract.trigger.numbered.mariadb import install
from pipelines.extract.trigger.numbered.mariadb.session import opened
from pipelines.extract.trigger.numbered.sql import microseconds, prefix
from pipelines.shared.errors import CaptureMissing, SourceUnavailable
from pipelines.shared.intervals import utc
from tests.extract.trigger.trigger_shop import TriggerShop, in_mariadb, only

pytestmark = pytest.mark.services


@pytest.fixture
def web(mariadb: MariadbServer) -> Iterator[TriggerShop]:
    with in_mariadb(mariadb) as shop:
        shop.install()
        yield shop


def insert(sku: str) -> str:
    return f"INSERT INTO articles (sku) VALUES ('{sku}')"


def action(name: str) -> str:
    return f"INSERT INTO actions (action_id) VALUES ('{name}')"


def test_a_number_drawn_before_and_committed_after_its_neighbour(web: TriggerShop) -> None:
    slow = web.connect()
    web.run("BEGIN", insert("slow 1"), db=slow)
    web.run(insert("quick"))
    rows, position = web.take()
    assert rows["sku"].to_pylist() == ["quick"]
    assert position["open"] == [[1, 1]]
    again, position = web.take("2101-01-01", position)
    assert again.num_rows == 0
    web.run(insert("slow 2"), "COMMIT", db=slow)
    rows, position = web.take("2102-01-01", position)
    assert rows["sku"].to_pylist() == ["slow 1", "slow 2"]
    assert len(set(rows["_transaction"].to_pylist())) == 1
    assert web.take("2103-01-01", position)[0].num_rows == 0


def test_numbers_that_never_come_are_forgotten_once_their_transactions_ended(
    web: TriggerShop,
) -> None:
    still_open = web.connect()
    for turn in range(5):
        web.run("BEGIN", insert(f"never {turn}"), "ROLLBACK", db=web.connect())
        web.run(insert(f"kept {turn}"))
    web.run("BEGIN", insert("slow"), db=still_open)
    _, position = web.take()
    assert len(position["open"]) == 5
    _, position = web.take("2101-01-01", position)
    assert len(position["open"]) == 5  # one gate is shut: nothing is known to be dead
    web.run(insert("last"))
    _, position = web.take("2102-01-01", position)
    assert len(position["open"]) == 6
    web.run("COMMIT", db=still_open)
    rows, position = web.take("2103-01-01", position)
    assert rows["sku"].to_pylist() == ["slow"]
    assert position["open"] == []


def test_a_transaction_that_spans_the_end_goes_whole_into_the_later_interval(
    web: TriggerShop,
) -> None:
    """It is committed before the interval is extracted; both tables wait."""
    end = utc("2017-01-09")
    db, other = web.connect(), web.connect()
    web.stamp(other, end - dt.timedelta(seconds=1))
    web.run("BEGIN", insert("rolled back"), "ROLLBACK", insert("before"), db=other)
    web.stamp(db, end - dt.timedelta(seconds=2))
    web.run("BEGIN", insert("early half"), db=db)
    web.stamp(db, end + dt.timedelta(seconds=2))
    web.run(action("late half"), "COMMIT", insert("next"), db=db)
    rows, position = web.take(end)
    assert rows["sku"].to_pylist() == ["before"]
    assert web.take(end, table="actions")[0].num_rows == 0
    once, after = web.take("2017-01-16", position)
    assert once["sku"].to_pylist() == ["early half", "next"]
    transactions = once["_transaction"].to_pylist()
    actions, _ = web.take("2017-01-16", table="actions")
    assert actions["_transaction"].to_pylist() == transactions[:1] != transactions[1:]
    web.run(insert("too late for it"))
    assert web.take("2017-01-16", position, upto=after)[0].equals(once)
    assert web.take(end, None, upto=position)[0].equals(rows)
    assert web.take("2017-01-23", after)[0].num_rows == 0


def test_without_a_binlog_each_statement_counts_alone(web: TriggerShop) -> None:
    """What the documentation says: nothing is lost or doubled, but the transaction is cut."""
    db = web.connect()
    web.run("SET sql_log_bin = 0", "BEGIN", db=db)
    web.stamp(db, utc("2017-01-08"))
    web.run(insert("a"), db=db)
    web.stamp(db, utc("2017-01-10"))
    web.run(insert("b"), "COMMIT", db=db)
    rows, position = web.take("2017-01-09")
    assert rows["sku"].to_pylist() == ["a"]
    assert web.take("2017-01-16", position)[0]["sku"].to_pylist() == ["b"]


def test_truncate_is_noticed_and_caught_up_with(web: TriggerShop) -> None:
    web.run(insert("a"), insert("b"))
    _, position = web.take()
    web.run("TRUNCATE articles", insert("b"), insert("c"))
    with pytest.raises(CaptureMissing, match=r"articles was truncated.*DELETE instead"):
        web.source().check("articles")
    assert any("articles was truncated" in each for each in extract.check(web.url, web.shop))
    assert web.install() == ["articles"]
    rows, _ = web.take("2101-01-01", position)
    ops = zip(rows["_op"].to_pylist(), rows["sku"].to_pylist(), strict=True)
    assert list(ops) == [("insert", "b"), ("insert", "c"), ("delete", "a")]


def test_an_index_is_no_reason_to_stop(web: TriggerShop) -> None:
    web.run("CREATE INDEX by_kind ON articles (kind(10))", "ALTER TABLE articles COMMENT 'x'")
    assert extract.check(web.url, web.shop) == []


def test_cascades_that_no_trigger_sees_are_refused(mariadb: MariadbServer) -> None:
    child = "ALTER TABLE actions ADD CONSTRAINT of FOREIGN KEY (action_id) REFERENCES users (uid)"
    with in_mariadb(mariadb) as web:
        web.run(f"{child} ON DELETE CASCADE")
        with pytest.raises(CaptureMissing, match=r"foreign key of changes its rows.*CASCADE"):
            web.install()
        web.run("ALTER TABLE actions DROP FOREIGN KEY of", child)
        web.install()
        web.run("ALTER TABLE actions DROP FOREIGN KEY of", f"{child} ON UPDATE CASCADE")
        with pytest.raises(CaptureMissing, match="foreign key of changes its rows"):
            web.source().check("actions")


def test_several_writing_servers_are_refused(web: TriggerShop, mariadb: MariadbServer) -> None:
    mariadb.execute("SET GLOBAL auto_increment_increment = 2")
    try:
        with pytest.raises(CaptureMissing, match="auto_increment_increment = 2"):
            web.source().check("articles")
    finally:
        mariadb.execute("SET GLOBAL auto_increment_increment = 1")


def test_the_shop_can_always_write(web: TriggerShop) -> None:
    """A change that cannot be captured stops extraction, never the shop."""
    web.run("ALTER TABLE articles DROP maker", insert("a"), insert("b"))
    assert any("maker" in each and "misses" in each for each in extract.check(web.url, web.shop))
    web.run("ALTER TABLE articles ADD maker text AFTER kind", insert("c"))
    assert web.install() == ["articles"]
    assert sorted(web.ops()) == [("insert", sku) for sku in "abc"]
    web.run("DROP TABLE freshrank_tiny_changes_articles, freshrank_tiny_faults", insert("d"))
    with pytest.raises(CaptureMissing, match="not captured"):
        web.source().check("articles")


def test_a_wider_column_is_followed(web: TriggerShop) -> None:
    long = "x" * 60
    web.run("ALTER TABLE articles MODIFY sku varchar(80) COLLATE utf8mb4_bin", insert(long))
    with pytest.raises(CaptureMissing, match="catches up"):
        web.source().check("articles")
    web.install()
    assert web.ops() == [("insert", long)]


def test_the_documented_rights_are_enough(web: TriggerShop, mariadb: MariadbServer) -> None:
    schema = web.shop.source.schema_name
    reader, clerk = f"reader@{LOOPBACK!r}", f"clerk@{LOOPBACK!r}"
    mariadb.execute(
        f"CREATE USER {reader} IDENTIFIED BY 'r'", f"CREATE USER {clerk} IDENTIFIED BY 'c'",
        f"GRANT SELECT, TRIGGER ON {schema}.* TO {reader}",
        f"GRANT INSERT ON {schema}.articles TO {clerk}",
    )  # fmt: skip
    try:
        url = mariadb.url(schema, "reader", "r")
        position: Any = {"open": [[1, 1]], "high": 1, "low": 0, "log": "", "end": "2017-01-09"}
        source = mode(url, web.shop).source(url, web.shop, web.source()._settings)
        with pytest.raises(CaptureMissing, match="both need PROCESS"):
            source.check("articles")
        mariadb.execute(f"GRANT PROCESS ON *.* TO {reader}")
        db = mariadb_server.connect(mariadb.url(schema, "clerk", "c"))
        web.run(insert("a"), db=db)
        source.check("articles")
        with source.changes("articles", utc("2100-01-01"), position) as taken:
            assert sum(batch.num_rows for batch in taken.batches) == 1
    finally:
        mariadb.execute(f"DROP USER {reader}, {clerk}")


EXACT = """
    CREATE TABLE exact (
        id bigint PRIMARY KEY, small smallint, huge bigint unsigned, real_ double, single float,
        flag boolean, day date, at timestamp(6) NULL, plain datetime(6), paid decimal(38, 10),
        word text, padded char(4), code varchar(9) CHARACTER SET latin1, skipped blob);
"""
COLUMNS = {
    "id": "int64", "small": "int32", "huge": "decimal(20,0)", "real_": "float64",
    "single": "float64", "flag": "bool", "day": "date", "at": "timestamp", "plain": "timestamp",
    "paid": "decimal(38,10)", "word": "string", "padded": "string", "code": "string",
}  # fmt: skip


def test_values_arrive_exactly_from_a_session_in_another_zone(mariadb: MariadbServer) -> None:
    text = "naïve 茶 🍵 \"quoted\", 'single'; back\\slash\\n\n\r\ttab\x01 \x00"
    zone = dt.timezone(dt.timedelta(hours=2))
    at = dt.datetime(2017, 1, 2, 3, 4, 5, 6, dt.UTC)
    rows: list[dict[str, Any]] = [
        {
            "id": 2**63 - 1, "small": -(2**15), "huge": Decimal(2**64 - 1), "real_": 0.1 + 0.2,
            "single": 1234567.75, "flag": True, "day": dt.date(2016, 2, 29), "at": at,
            "plain": dt.datetime(2017, 7, 1, 23, 59, 59, 999999, dt.UTC),
            "paid": Decimal("-1234567890123456789012345678.0000000001"), "word": text,
            "padded": "ab", "code": "naïve",
        },
        dict.fromkeys(COLUMNS) | {"id": -1},
        dict.fromkeys(COLUMNS) | {"id": 0, "word": "", "code": "NULL", "padded": r"\N"},
    ]  # fmt: skip
    table = {"key": ["id"], "columns": COLUMNS, "commit_time": "at", "ignore": ["skipped"]}
    with in_mariadb(mariadb, EXACT) as web:
        web.shop = only(web.shop, "exact", table)
        web.install()
        db = web.connect()
        web.run("SET time_zone = '+02:00'", "SET sql_mode = ''", db=db)
        for row in rows:
            given = row | {
                "at": row["at"] and row["at"].astimezone(zone).replace(tzinfo=None),
                "plain": row["plain"] and row["plain"].replace(tzinfo=None),
            }
            holes = ", ".join(["%s"] * len(given))
            db.cursor().execute(
                f"INSERT INTO exact ({', '.join(given)}) VALUES ({holes})", list(given.values())
            )
        web.run("INSERT INTO exact (id, day) VALUES (5, '0000-00-00')", db=db)
        web.run("UPDATE exact SET single = 1234567.875 WHERE single > 1", db=db)
        changes, _ = web.take(table="exact")
    stored = changes.select(list(COLUMNS)).to_pylist()
    assert stored[:3] == rows
    assert stored[3] == dict.fromkeys(COLUMNS) | {"id": 5}
    assert stored[4] == rows[0] | {"single": 1234567.875}
    assert changes["_committed_at"][0].as_py() == at


def test_what_is_read_follows_the_change_not_the_history(web: TriggerShop) -> None:
    """Law 11: the part that was extracted already is not scanned again."""
    db = web.connect()
    position: Any = None
    for week in range(10):
        web.stamp(db, utc("2017-01-03") + dt.timedelta(weeks=week))
        web.run(
            f"INSERT INTO articles (sku) SELECT concat({week}, '.', seq) FROM seq_1_to_1000", db=db
        )
    web.run("ANALYZE TABLE freshrank_tiny_changes_articles")
    for week in range(9):
        rows, position = web.take(utc("2017-01-09") + dt.timedelta(weeks=week), position)
        assert rows.num_rows == 1000
    with opened(web.url) as session:
        log = session.log(web.shop, "articles")
        due = log.due(microseconds(utc("2017-03-13")), position, None, [])
        session.rows("FLUSH STATUS")
        assert len(session.rows(due)) == 1000
        read = session.rows("SHOW STATUS LIKE 'Handler_read%'")
    assert sum(int(count) for _, count in read) < 4000


def test_an_update_that_was_ignored_is_no_change(web: TriggerShop) -> None:
    """MariaDB fires the trigger, although the row stays as it was."""
    web.install()
    web.run("INSERT INTO articles (sku) VALUES ('a'), ('b')")
    web.run("ALTER TABLE articles ADD UNIQUE (amount)", "UPDATE articles SET amount = 1 LIMIT 1")
    web.install()
    web.run(
        "UPDATE IGNORE articles SET sku = 'b' WHERE sku = 'a'",
        "UPDATE IGNORE articles SET amount = 1",
        "UPDATE IGNORE articles SET sku = 'c' WHERE sku = 'a'",
    )
    assert web.ops() == [
        ("insert", "a"), ("insert", "b"), ("update", "a"), ("delete", "a"), ("insert", "c")
    ]  # fmt: skip


@pytest.mark.parametrize("ends", ["in time", "by a kill"])
def test_installing_does_not_go_on_without_its_lock(
    mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """GET_LOCK answers 0 when the time is over, and NULL when its statement is killed."""
    monkeypatch.setattr(install, "LOCK_TIMEOUT_S", 1 if ends == "in time" else 30)
    with in_mariadb(mariadb) as shop:
        other = shop.connect()
        shop.run(f"SELECT GET_LOCK('{prefix(shop.shop)}', 0)", db=other)
        killer = threading.Thread(target=kill_who_waits, args=[mariadb], daemon=True)
        if ends == "by a kill":
            killer.start()
        for change in (shop.install, lambda: extract.remove(shop.url, shop.shop)):
            with pytest.raises(SourceUnavailable, match=r"GET_LOCK|interrupted"):
                change()
            if ends == "by a kill":
                break
        assert shop.run("SHOW TABLES LIKE 'freshrank%'") == []
        other.close()
        assert shop.install()


def kill_who_waits(server: MariadbServer) -> None:
    """Kill the statement that waits for a user's lock, as soon as one does."""
    waits = "SELECT id FROM information_schema.processlist WHERE state = 'User lock'"
    while not (waiting := server.execute(waits)):
        time.sleep(0.05)
    server.execute(f"KILL QUERY {waiting[0][0]}")
