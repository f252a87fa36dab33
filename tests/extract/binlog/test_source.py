"""Binlog capture on a real MariaDB: what is taken, exactly, and what is refused.

The contract suite stamps transactions with times of its own. Here the server's clock does, and
what only a log has to promise is added: the snapshot's handover, restarts, purged files, DDL.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import make_url

from benchmarks.servers import mariadb as mariadb_server
from benchmarks.servers.mariadb import MariadbServer, connect
from pipelines import extract
from pipelines.extract.binlog import snapshot
from pipelines.extract.binlog import source as binlog
from pipelines.extract.binlog.source import BinlogSource
from pipelines.extract.source import Position
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import (
    CaptureMissing,
    CorruptPartition,
    SchemaDrift,
    SettingsError,
    SourceUnavailable,
)
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings
from tests.extract import mariadb_shop
from tests.extract.mariadb_shop import tiny

pytestmark = pytest.mark.services

KEY = "a key for tests"
TABLE = "articles"
SECOND = dt.timedelta(seconds=1)


@pytest.fixture
def url(mariadb: MariadbServer) -> Iterator[str]:
    with mariadb_server.database(mariadb, mariadb_shop.TABLES) as url:
        yield url


def schema_of(url: str) -> str:
    return str(make_url(url).database)


def settings_for(folder: Path, url: str, key: str | None = KEY) -> Settings:
    return Settings(
        lake=str(folder / "lake"),
        ledger_url=f"sqlite:///{folder}/ledger.db",
        mlflow_uri="",
        connections={"tiny": url},
        pseudonym_key=key,
    )


def source_of(url: str, shop: Shop | None = None) -> BinlogSource:
    return BinlogSource(url, shop or tiny(schema_of(url)), settings_for(Path(), url))


def run(url: str, *statements: str) -> None:
    with connect(url) as db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def take(
    source: BinlogSource,
    before: dt.datetime | None = None,
    after: Position | None = None,
    table: str = TABLE,
) -> tuple[list[dict[str, Any]], Position]:
    """Changes before a time, by default all there are."""
    before = before or source.clock() + dt.timedelta(hours=1)
    with source.changes(table, before, after) as taken:
        rows = pa.Table.from_batches(list(taken.batches), taken.schema).to_pylist()
    return rows, taken.position


def ops(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["_op"], row["sku"]) for row in rows]


def next_second(source: BinlogSource) -> dt.datetime:
    """Wait until a second begins at the server: what comes now is not before it."""
    end = source.clock().replace(microsecond=0) + SECOND
    while source.clock() < end:
        time.sleep(0.02)
    return end


EXACT = """
    CREATE TABLE exact (
        id bigint PRIMARY KEY, tiny tinyint, small smallint unsigned, medium mediumint,
        huge bigint unsigned, half float, real_one double, flag tinyint(1), day date,
        at timestamp(6) NULL, plain datetime(6), whole datetime, paid decimal(12, 4),
        large decimal(38, 10), word text, padded char(4), latin varchar(9) CHARACTER SET latin1,
        colour enum('red', 'grün'), extra json, skipped blob, bits bit(9), span time(3),
        options set('a', 'b'), ident uuid, host inet6, computed int AS (tiny + 1) VIRTUAL,
        stored int AS (tiny + 2) STORED
    ) CHARACTER SET utf8mb4
"""
EXACT_COLUMNS = {
    "id": "int64", "tiny": "int32", "small": "int32", "medium": "int32", "huge": "decimal(20,0)",
    "half": "float64", "real_one": "float64", "flag": "bool", "day": "date", "at": "timestamp",
    "plain": "timestamp", "whole": "timestamp", "paid": "decimal(12,4)", "large": "decimal(38,10)",
    "word": "string", "padded": "string", "latin": "string", "colour": "string", "extra": "string",
    "stored": "int64",
}  # fmt: skip
EXACT_ROWS = [
    (
        -(2**63), -128, 65535, -8388608, 2**64 - 1, 0.1, -1.5e300, 1, "2024-02-29",
        "2024-07-01 12:00:00.123456", "9999-12-31 23:59:59.999999", "1000-01-01 00:00:00",
        "-99999999.0001", "-1234567890123456789012345678.0123456789", "Tee ☕ 茶 🫖", "ab", "Käse€",
        "grün", '{"a": [1, null,  "ü"]}',
    ),
    (2**63 - 1, 127, 0, 8388607, 0, -3.4e38, 5e-324, 0, "1000-01-01", "2038-01-19 03:14:07.999999",
     "2024-01-01 00:00:00.000001", "2024-01-01 23:59:59", "0.0000", "0.0000000001", "", "", "",
     "red", "{}"),
    (0, *[None] * 18),
    (1, 0, 1, -1, 1, 0.0, -0.0, 1, "9999-12-31", "1970-01-01 00:00:01", "2024-01-01 00:00:00",
     "2024-12-31 00:00:00", "-0.0500", "-0.5000000000", "'\"\\\n\t\x00", "a  b", " x", "red", "1"),
]  # fmt: skip


def exact_shop(schema: str) -> Shop:
    shop = tiny(schema)
    ignored = ["skipped", "bits", "span", "options", "ident", "host", "computed"]
    table = shop.tables[TABLE].model_copy(
        update={"key": ["id"], "columns": EXACT_COLUMNS, "ignore": ignored}
    )
    return shop.model_copy(update={"tables": {"exact": table}})


def test_values_are_the_same_through_the_snapshot_and_through_the_log(
    mariadb: MariadbServer,
) -> None:
    with mariadb_server.database(mariadb, EXACT) as url:
        source = source_of(url, exact_shop(schema_of(url)))
        source.check("exact")
        _, empty = take(source, table="exact")
        with connect(url) as db, db.cursor() as cursor:
            names = [name for name in EXACT_COLUMNS if name != "stored"]
            cursor.executemany(
                f"INSERT INTO exact ({', '.join(names)}, skipped, bits, span, options, ident, "
                f"host) VALUES ({', '.join(['%s'] * len(names))}, x'ff00fe', b'101', "
                "'-01:02:03', '', uuid(), '2001:db8::ff00:42:8329')",
                EXACT_ROWS,
            )
        logged, _ = take(source, after=empty, table="exact")
        found, _ = take(source, table="exact")
    plain = [{name: row[name] for name in EXACT_COLUMNS} for row in logged]
    assert sorted(plain, key=lambda row: row["id"]) == [
        {name: row[name] for name in EXACT_COLUMNS} for row in found
    ]
    first, second, nothing, last = plain
    assert first == {
        "id": -(2**63), "tiny": -128, "small": 65535, "medium": -8388608,
        "huge": Decimal(2**64 - 1), "half": pytest.approx(0.1, abs=1e-7), "real_one": -1.5e300,
        "flag": True, "day": dt.date(2024, 2, 29), "at": utc("2024-07-01T12:00:00.123456"),
        "plain": utc("9999-12-31T23:59:59.999999"), "whole": utc("1000-01-01T00:00:00"),
        "paid": Decimal("-99999999.0001"),
        "large": Decimal("-1234567890123456789012345678.0123456789"), "word": "Tee ☕ 茶 🫖",
        "padded": "ab", "latin": "Käse€", "colour": "grün", "extra": '{"a": [1, null,  "ü"]}',
        "stored": -126,
    }  # fmt: skip
    assert first["half"] == float(pa.scalar(0.1, pa.float32()).as_py())
    assert (second["word"], second["flag"], second["padded"]) == ("", False, "")
    assert second["at"] == utc("2038-01-19T03:14:07.999999")
    assert {name for name, value in nothing.items() if value is not None} == {"id"}
    assert (last["paid"], last["large"]) == (Decimal("-0.0500"), Decimal("-0.5"))
    assert last["word"] == "'\"\\\n\t\x00"


def test_a_zero_date_is_null_through_the_snapshot_and_through_the_log(
    mariadb: MariadbServer,
) -> None:
    table = "CREATE TABLE exact (id int PRIMARY KEY, day date, at timestamp NULL, plain datetime)"
    with mariadb_server.database(mariadb, table) as url:
        columns = {"id": "int32", "day": "date", "at": "timestamp", "plain": "timestamp"}
        shop = exact_shop(schema_of(url))
        declared = shop.tables["exact"].model_copy(update={"columns": columns, "ignore": []})
        source = source_of(url, shop.model_copy(update={"tables": {"exact": declared}}))
        _, empty = take(source, table="exact")
        run(url, "SET sql_mode = ''", "INSERT INTO exact VALUES (1, 0, 0, 0)")
        for rows in (take(source, after=empty, table="exact"), take(source, table="exact")):
            assert [(row["day"], row["at"], row["plain"]) for row in rows[0]] == [(None,) * 3]


def test_an_interval_from_before_the_log_is_refused(url: str) -> None:
    with pytest.raises(
        CaptureMissing, match=r"articles cannot be read.*2017-01-09.*first interval.* is \[20"
    ):
        take(source_of(url), utc("2017-01-09"))


def fold(rows: list[dict[str, Any]], state: dict[str, Any]) -> dict[str, Any]:
    for row in rows:
        if row["_op"] == "insert":
            assert row["sku"] not in state
        else:
            assert row["sku"] in state
        state[row["sku"]] = row["kind"]
        if row["_op"] == "delete":
            del state[row["sku"]]
    return state


def test_snapshot_and_log_meet_while_writers_are_busy(
    url: str, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several snapshots and several cuts, small batches, files that rotate: never a gap."""
    monkeypatch.setattr(binlog, "BATCH", 40)
    monkeypatch.setattr(snapshot, "BATCH", 40)
    source = source_of(url)
    stop = threading.Event()

    def write(writer: int) -> None:
        with connect(url, autocommit=False) as db, db.cursor() as cursor:
            number = 0
            while not stop.is_set():
                number += 1
                sku = f"{writer}.{number}"
                cursor.execute("INSERT INTO articles (sku, kind) VALUES (%s, 'new')", [sku])
                cursor.execute("UPDATE articles SET kind = %s WHERE sku LIKE %s ORDER BY sku "
                               "LIMIT 3", [sku, f"{writer}.%"])  # fmt: skip
                if number % 3 == 0:
                    cursor.execute("UPDATE articles SET sku = %s WHERE sku = %s",
                                   [f"{sku}!", f"{writer}.{number - 1}"])  # fmt: skip
                if number % 4 == 0:
                    cursor.execute("DELETE FROM articles WHERE sku LIKE %s LIMIT 1",
                                   [f"{writer}.%"])  # fmt: skip
                db.rollback() if number % 5 == 0 else db.commit()
                time.sleep(0.01)

    writers = [threading.Thread(target=write, args=[each]) for each in range(3)]
    for each in writers:
        each.start()
    try:
        time.sleep(2.1)
        histories: list[tuple[dict[str, Any], Position]] = []
        for _ in range(5):
            before = (source.clock() - SECOND / 2).replace(microsecond=0)
            for place, (state, position) in enumerate(histories):
                rows, position = take(source, before, position)
                histories[place] = (fold(rows, state), position)
            rows, position = take(source, before)
            histories.append((fold(rows, {}), position))
            assert all(state == histories[0][0] for state, _ in histories)
            assert len({each["offset"] for _, each in histories}) == 1
            mariadb.execute("FLUSH BINARY LOGS")
            time.sleep(0.7)
    finally:
        stop.set()
        for each in writers:
            each.join()
    with connect(url) as db, db.cursor() as cursor:
        cursor.execute("SELECT sku, kind FROM articles")
        present = dict(cursor.fetchall())
    assert len(present) > 30
    for state, position in histories:
        assert fold(take(source, after=position)[0], state) == present


def test_a_changed_key_is_a_delete_and_an_insert_and_no_change_is_none(url: str) -> None:
    source = source_of(url)
    run(url, "INSERT INTO articles (sku, kind) VALUES ('a', 'tea')")
    run(url, "INSERT INTO users VALUES ('u', 'old@example.org', 'Ulm')")
    _, position = take(source)
    _, users = take(source, table="users")
    run(url, "UPDATE articles SET sku = 'A'", "UPDATE users SET email = 'new@example.org'")
    rows, _ = take(source, after=position)
    assert ops(rows) == [("delete", "a"), ("insert", "A")]
    assert [row["kind"] for row in rows] == ["tea", "tea"]
    assert take(source, after=users, table="users")[0] == []


def test_a_purged_file_is_named_and_a_fresh_snapshot_leads_on(
    url: str, mariadb: MariadbServer
) -> None:
    source = source_of(url)
    run(url, "INSERT INTO articles (sku) VALUES ('a'), ('b')")
    rows, position = take(source)
    run(url, "DELETE FROM articles WHERE sku = 'a'", "INSERT INTO articles (sku) VALUES ('c')")
    mariadb.execute("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    (last,) = mariadb.execute("SHOW BINARY LOGS")[-1:]
    # Files that a crash would still need are kept until the tables are on disk.
    while mariadb.execute("SHOW BINARY LOGS")[0][0] != last[0]:
        mariadb.execute(f"PURGE BINARY LOGS TO '{last[0]}'")
        time.sleep(0.1)
    with pytest.raises(CaptureMissing, match=r"deleted that binlog file; raise `snapshot`"):
        take(source, after=position)
    fresh = source_of(url, tiny(schema_of(url), snapshot=2))
    again, position = take(fresh, after=position)
    assert sorted(row["sku"] for row in again) == ["b", "c"]
    assert min(row["_position"] for row in again) > max(row["_position"] for row in rows)
    run(url, "INSERT INTO articles (sku) VALUES ('d')")
    assert ops(take(fresh, after=position)[0]) == [("insert", "d")]


def test_a_log_of_another_history_is_named(url: str, mariadb: MariadbServer) -> None:
    source = source_of(url)
    _, position = take(source)
    with pytest.raises(CaptureMissing, match="belongs to the server 12, but this is the server 11"):
        take(source, after={**position, "server": "12"})
    time.sleep(1.1)
    mariadb.execute("RESET MASTER")
    while mariadb.execute("SHOW BINARY LOGS")[-1][0] < position["file"]:
        mariadb.execute("FLUSH BINARY LOGS")
    with pytest.raises(CaptureMissing, match="a log that this server no longer has"):
        take(source, after=position)
    with pytest.raises(CaptureMissing, match="another capture mode"):
        take(source, after={"snapshot": "7:7:", "end": "", "log": ""})


def test_a_first_extraction_cannot_be_read_again(url: str) -> None:
    source = source_of(url)
    _, position = take(source)
    with (
        pytest.raises(CorruptPartition, match="bring it back from a backup"),
        source.changes(TABLE, source.clock(), None, position),
    ):
        pass


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE articles",
        "truncate table `articles`",
        "DROP TABLE users, articles",
        "DROP TABLE IF EXISTS articles",
        "RENAME TABLE articles TO former, shown TO articles",
        "ALTER TABLE articles RENAME TO former",
        "ALTER TABLE articles ADD x int, RENAME AS former",
        "CREATE OR REPLACE TABLE articles (sku varchar(9) PRIMARY KEY)",
    ],
)
def test_rows_that_go_without_a_row_event_are_named(url: str, statement: str) -> None:
    source = source_of(url)
    run(url, "INSERT INTO articles (sku) VALUES ('a')")
    _, position = take(source)
    run(url, statement)
    with pytest.raises(SchemaDrift, match=r"articles was emptied, dropped.*`snapshot`"):
        take(source, after=position)


def test_a_table_emptied_before_the_first_interval_ends_is_no_fault(url: str) -> None:
    source = source_of(url)
    run(url, "INSERT INTO articles (sku) VALUES ('a')", "TRUNCATE articles")
    run(url, "INSERT INTO articles (sku) VALUES ('b')")
    end = next_second(source)
    run(url, "INSERT INTO articles (sku) VALUES ('c')")
    assert ops(take(source, end)[0]) == [("insert", "b")]
    run(url, "TRUNCATE articles")
    with pytest.raises(SchemaDrift, match="emptied"):
        take(source, end)


def test_statements_that_keep_the_rows_are_no_fault(url: str) -> None:
    source = source_of(url)
    run(url, "INSERT INTO articles (sku) VALUES ('a')")
    _, position = take(source)
    run(
        url,
        "ALTER TABLE articles ADD note text FIRST",
        "INSERT INTO articles (sku, note) VALUES ('b', 'x')",
        "ALTER TABLE articles RENAME COLUMN note TO notes, MODIFY kind varchar(99)",
        "CREATE INDEX kinds ON articles (kind)",
        "DROP INDEX kinds ON articles",
        "TRUNCATE users",
        f"CREATE DATABASE {schema_of(url)}_2",
        f"CREATE TABLE {schema_of(url)}_2.articles (x int)",
        f"TRUNCATE {schema_of(url)}_2.articles",
        f"DROP DATABASE {schema_of(url)}_2",
        "CREATE TABLE articles_old (sku varchar(9))",
        "DROP TABLE articles_old",
        "ALTER TABLE articles DROP COLUMN notes",
        "UPDATE articles SET kind = 'new' WHERE sku = 'a'",
    )
    source.check(TABLE)
    assert ops(take(source, after=position)[0]) == [("insert", "b"), ("update", "a")]


def test_changes_from_before_a_column_have_none_in_it(url: str) -> None:
    source = source_of(url)
    run(url, "ALTER TABLE articles DROP maker")
    before = source_of(url, _without_maker(url))
    _, position = take(before)
    run(url, "INSERT INTO articles (sku) VALUES ('a')", "ALTER TABLE articles ADD maker text")
    rows, _ = take(source, after=position)
    assert [(row["sku"], row["maker"]) for row in rows] == [("a", None)]


def _without_maker(url: str) -> Shop:
    shop = tiny(schema_of(url))
    columns = {n: k for n, k in shop.tables[TABLE].columns.items() if n != "maker"}
    table = shop.tables[TABLE].model_copy(update={"columns": columns, "ignore": ["maker"]})
    return shop.model_copy(update={"tables": {**shop.tables, TABLE: table}})


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        ("SET SESSION binlog_format = STATEMENT", "written to by a statement"),
        ("SET SESSION binlog_row_image = MINIMAL", "logged in part"),
    ],
)
def test_a_session_that_logs_otherwise_is_noticed(url: str, session: str, expected: str) -> None:
    source = source_of(url)
    run(url, "INSERT INTO articles (sku) VALUES ('a')")
    _, position = take(source)
    run(url, session, "UPDATE articles SET kind = 'x' WHERE sku = 'a'")
    with pytest.raises(CaptureMissing, match=expected):
        take(source, after=position)


def test_an_xa_transaction_is_noticed(url: str) -> None:
    source = source_of(url)
    _, position = take(source)
    run(url, "XA START 'x'", "INSERT INTO articles (sku) VALUES ('a')", "XA END 'x'",
        "XA PREPARE 'x'", "XA COMMIT 'x'")  # fmt: skip
    with pytest.raises(CaptureMissing, match="an XA transaction on articles, which cannot"):
        take(source, after=position)


@pytest.mark.parametrize(
    ("name", "value", "normal"),
    [
        ("binlog_format", "MIXED", "ROW"),
        ("binlog_row_image", "MINIMAL", "FULL"),
        ("binlog_row_metadata", "NO_LOG", "FULL"),
        ("log_bin_compress", "ON", "OFF"),
    ],
)
def test_a_setting_that_loses_changes_is_named(
    url: str, mariadb: MariadbServer, caplog: Any, name: str, value: str, normal: str
) -> None:
    shop = tiny(schema_of(url))
    mariadb.execute(f"SET GLOBAL {name} = {value}")
    try:
        expected = f"{name} = {value}, the binlog mode needs.*write `{name} = {normal}`"
        with pytest.raises(CaptureMissing, match=expected):
            extract.install(url, shop)
        with pytest.raises(CaptureMissing, match=expected):
            source_of(url).check(TABLE)
        assert any(name in each for each in extract.check(url, shop))
    finally:
        mariadb.execute(f"SET GLOBAL {name} = {normal}")
    assert extract.install(url, shop) == []
    assert extract.check(url, shop) == []
    extract.remove(url, shop)
    assert "nothing to remove" in caplog.text
    assert mariadb_server.PASSWORD not in caplog.text


def test_a_server_without_a_binlog_is_named() -> None:
    with (
        mariadb_server.server(log_settings=()) as server,
        mariadb_server.database(server, mariadb_shop.TABLES) as url,
        pytest.raises(CaptureMissing, match=r"log_bin = OFF.*write `log_bin = binlog` under"),
    ):
        extract.install(url, tiny(schema_of(url)))


def test_log_files_that_go_too_early_are_found(url: str, mariadb: MariadbServer) -> None:
    mariadb.execute("SET GLOBAL expire_logs_days = 3")
    try:
        (finding,) = extract.check(url, tiny(schema_of(url)))
    finally:
        mariadb.execute("SET GLOBAL expire_logs_days = 0")
    assert "deletes binlog files after 3 days" in finding
    assert "`expire_logs_days = 14`" in finding


def test_a_missing_right_is_named(url: str, mariadb: MariadbServer) -> None:
    shop, account = tiny(schema_of(url)), "reader@'127.0.0.1'"
    reader = mariadb.url(schema_of(url), "reader", "word")
    mariadb.execute(f"CREATE OR REPLACE USER {account} IDENTIFIED BY 'word'")
    try:
        for right in ("BINLOG MONITOR ON *.*", "REPLICATION SLAVE ON *.*",
                      f"SELECT ON {schema_of(url)}.*"):  # fmt: skip
            with pytest.raises(CaptureMissing, match=r"lacks a right.*GRANT SELECT, REPLICATION"):
                extract.install(reader, shop)
            mariadb.execute(f"GRANT {right} TO {account}")
        extract.install(reader, shop)
        run(url, "INSERT INTO articles (sku) VALUES ('a')")
        assert ops(take(source_of(reader))[0]) == [("insert", "a")]
    finally:
        mariadb.execute(f"DROP USER {account}")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("ALTER TABLE articles ADD discount int", r"articles\.discount is new; add it to"),
        ("ALTER TABLE articles RENAME COLUMN maker TO makers",
         r"articles\.maker is declared, but the table has no such column \(is it now 'makers'\?\)"),
        ("ALTER TABLE articles MODIFY amount decimal(12, 3)",
         r"decimal\(10,2\), but the table has decimal\(12,3\), which holds 9 digits before and 3"),
        ("ALTER TABLE shown MODIFY place int unsigned",
         r"shown\.place is declared int32, but the table has int\(10\) unsigned, accepted: "),
        ("ALTER TABLE articles MODIFY kind blob", r"kind is declared string, but .* blob"),
        ("ALTER TABLE articles RENAME TO article", r"no such table; did you mean 'article'\?"),
        ("ALTER TABLE articles ENGINE = Aria", r"kept by Aria.*run `ALTER TABLE .* InnoDB`"),
    ],
)  # fmt: skip
def test_a_table_that_departs_from_its_declaration_is_named(
    url: str, statement: str, expected: str
) -> None:
    shop = tiny(schema_of(url))
    run(url, statement)
    with pytest.raises(SchemaDrift, match=expected):
        source_of(url).check("shown" if "shown" in statement else TABLE)
    with pytest.raises(SchemaDrift, match=expected):
        extract.install(url, shop)
    assert any(re.search(expected, finding) for finding in extract.check(url, shop))


def test_personal_columns_never_reach_the_lake(url: str, tmp_path: Path) -> None:
    shop = tiny(schema_of(url))
    run(url, "INSERT INTO users VALUES ('u1', 'eve@example.org', 'Ulm')")
    week = _weeks(source_of(url))[0]
    extract_run = Run(settings_for(tmp_path, url), shop, week)
    assert extract.run(extract_run, "users").rows == 1
    with pytest.raises(SettingsError, match=r"users\.city.*FRESHRANK_PSEUDONYM_KEY"):
        BinlogSource(url, shop, settings_for(tmp_path, url, key=None)).check("users")
    (row,) = extract_run.lake.read("changes/users").to_pylist()
    assert row["city"] == hmac.new(KEY.encode(), b"Ulm", hashlib.sha256).hexdigest()
    assert "email" not in row
    stored = b"".join(p.read_bytes() for p in (tmp_path / "lake").rglob("*") if p.is_file())
    assert b"Ulm" not in stored
    assert b"example.org" not in stored


def _weeks(source: BinlogSource) -> list[Interval]:
    """The shop's interval that is under way, and three more."""
    grid = tiny("any").grid
    start = grid.anchor + (source.clock() - grid.anchor) // grid.step * grid.step
    return [Interval(start + n * grid.step, start + (n + 1) * grid.step) for n in range(4)]


def test_a_url_of_another_database_is_refused(url: str, mariadb: MariadbServer) -> None:
    with pytest.raises(SettingsError, match="knows no database 'postgresql'"):
        extract.check("postgresql+psycopg://someone@127.0.0.1/shop", tiny("shop"))
    wrong = mariadb.url(schema_of(url), password="wrong word")
    with pytest.raises(SourceUnavailable, match="does not answer") as caught:
        extract.check(wrong, tiny(schema_of(url)))
    assert "wrong word" not in str(caught.value)
