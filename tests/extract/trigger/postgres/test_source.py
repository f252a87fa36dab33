"""Trigger capture on a real PostgreSQL: what is captured, exactly, and at what cost."""

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

from benchmarks.servers.postgres import connect
from pipelines import extract
from pipelines.extract.trigger.postgres.source import TriggerSource
from pipelines.shared.columns import MISFITS
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift, SettingsError, SourceUnavailable
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings
from tests.extract.postgres_shop import DECLARED, database, tiny

pytestmark = pytest.mark.services

WEEK = Interval.of("2017-01-02", "2017-01-09")
OPENING = utc("2017-01-01")
KEY = "a key for tests"
EXACT = """
    CREATE DOMAIN public.price AS numeric(12, 4);
    CREATE TYPE public.colour AS ENUM ('red', 'green');
    CREATE TABLE public.exact (
        id bigint PRIMARY KEY, small smallint, real double precision, flag boolean, day date,
        at timestamptz, plain timestamp, paid public.price, any_number numeric, word text,
        padded char(4), code varchar(9), colour public.colour, ident uuid, extra json, skipped bytea
    );
"""
EXACT_COLUMNS = {
    "id": "int64",
    "small": "int32",
    "real": "float64",
    "flag": "bool",
    "day": "date",
    "at": "timestamp",
    "plain": "timestamp",
    "paid": "decimal(12,4)",
    "any_number": "decimal(38,10)",
    "word": "string",
    "padded": "string",
    "code": "string",
    "colour": "string",
    "ident": "string",
    "extra": "string",
}


def settings_for(folder: Path, url: str, key: str | None = KEY) -> Settings:
    return Settings(
        lake=str(folder / "lake"),
        ledger_url=f"sqlite:///{folder}/ledger.db",
        mlflow_uri="",
        connections={"tiny": url},
        shops=DECLARED,
        pseudonym_key=key,
    )


def shop_with(tables: dict[str, Any], schema: str = "public") -> Shop:
    """The tiny shop plus further tables, in one schema."""
    declared = tiny().model_dump(by_alias=True, mode="python")
    declared["tables"] |= tables
    declared["sources"]["shop"]["schema"] = schema
    declared["interval"]["anchor"] = dt.date(2017, 1, 2)
    return Shop.model_validate(declared)


@pytest.fixture
def shop_url(postgres: Any) -> Iterator[str]:
    with database(postgres) as url:
        yield url


def taken(url: str, shop: Shop, table: str, before: str | None = None) -> pa.Table:
    """Every change of a table, for an interval that was not asked for before."""
    source = TriggerSource(url, shop, settings_for(Path(), url))
    end = utc(before) if before else dt.datetime.now(dt.UTC) + dt.timedelta(days=9999)
    with source.changes(table, end, None) as changes:
        return pa.Table.from_batches(list(changes.batches), changes.schema)


def ops(url: str, table: str = "articles", column: str = "sku") -> list[tuple[str, str]]:
    changes = taken(url, tiny(), table)
    return list(zip(changes["_op"].to_pylist(), changes[column].to_pylist(), strict=True))


def test_rows_found_are_the_first_changes(shop_url: str) -> None:
    with connect(shop_url) as db:
        db.execute("INSERT INTO web.articles VALUES ('b', 'tea', NULL, 1), ('a', '', 'x', 2)")
        assert extract.install(shop_url, tiny(), OPENING) == sorted(tiny().tables)
        db.execute("INSERT INTO web.articles VALUES ('c', 'tea', NULL, 1)")
    changes = taken(shop_url, tiny(), "articles")
    assert changes["sku"].to_pylist() == ["a", "b", "c"]
    assert changes["_committed_at"].to_pylist()[:2] == [OPENING] * 2
    assert changes["_committed_at"][2].as_py() > utc("2020-01-01")


def test_the_shops_clock_stamps_changes(shop_url: str, tmp_path: Path) -> None:
    extract.install(shop_url, tiny())
    with connect(shop_url) as db:
        name = db.info.dbname
        db.execute(f"ALTER DATABASE {name} SET freshrank.clock = '2017-03-04 05:06+00'")
    with connect(shop_url) as db:
        db.execute("INSERT INTO web.articles VALUES ('a')")
    run = Run(settings_for(tmp_path, shop_url), tiny(), WEEK)
    assert extract.clock(run) == utc("2017-03-04T05:06")
    assert taken(shop_url, tiny(), "articles")["_committed_at"][0].as_py() == extract.clock(run)


def test_installing_twice_is_installing_once(shop_url: str) -> None:
    with connect(shop_url) as db:
        db.execute("INSERT INTO web.articles VALUES ('a')")
        extract.install(shop_url, tiny())
        assert extract.install(shop_url, tiny()) == []
        assert ops(shop_url) == [("insert", "a")]
        assert extract.check(shop_url, tiny()) == []


def test_removing_leaves_the_shop_as_it_was(shop_url: str) -> None:
    with connect(shop_url) as db:
        query = "SELECT count(*) FROM {} WHERE {}"
        extract.install(shop_url, tiny())
        extract.remove(shop_url, tiny())
        extract.remove(shop_url, tiny())
        for catalogue, ours in (
            ("pg_trigger", "tgname LIKE 'freshrank%'"),
            ("pg_namespace", "nspname LIKE 'freshrank%'"),
        ):
            assert db.execute(query.format(catalogue, ours)).fetchone() == (0,)
        db.execute("INSERT INTO web.articles VALUES ('a')")
    assert "not captured" in extract.check(shop_url, tiny())[0]


def test_each_kind_of_statement(shop_url: str) -> None:
    extract.install(shop_url, tiny())
    with connect(shop_url) as db:
        db.execute("INSERT INTO web.articles SELECT x FROM unnest('{a,b,c,d}'::text[]) AS x")
        db.execute("UPDATE web.articles SET kind = 'tea' WHERE sku IN ('a', 'b')")
        db.execute("UPDATE web.articles SET kind = 'tea'")  # a and b stay as they are
        db.execute("DELETE FROM web.articles WHERE sku > 'b'")
        db.execute(
            "INSERT INTO web.articles VALUES ('a') ON CONFLICT (sku) DO UPDATE SET maker='m'"
        )
        db.execute("UPDATE web.articles SET sku = 'z' WHERE sku = 'a'")
        db.execute(
            "UPDATE web.articles SET sku = CASE sku WHEN 'z' THEN 'b' ELSE 'z' END WHERE false"
        )
        db.execute("TRUNCATE web.articles")
    assert ops(shop_url) == [
        *(("insert", sku) for sku in "abcd"),
        ("update", "a"), ("update", "b"),
        ("update", "c"), ("update", "d"),
        ("delete", "c"), ("delete", "d"),
        ("update", "a"),
        ("delete", "a"), ("insert", "z"),
        ("delete", "b"), ("delete", "z"),
    ]  # fmt: skip


def test_swapped_keys_are_updates(postgres: Any) -> None:
    with database(postgres) as url:
        with connect(url) as db:
            db.execute("ALTER TABLE web.articles DROP CONSTRAINT articles_pkey")
            db.execute("ALTER TABLE web.articles ALTER sku DROP NOT NULL")
            extract.install(url, tiny())
            db.execute("INSERT INTO web.articles VALUES ('a', '1'), ('b', '2'), (NULL, '3')")
            db.execute(
                "UPDATE web.articles SET sku = CASE sku WHEN 'a' THEN 'b' ELSE 'a' END "
                "WHERE sku IS NOT NULL"
            )
            db.execute("UPDATE web.articles SET kind = '4' WHERE sku IS NULL")
            db.execute("UPDATE web.articles SET maker = maker")
        assert ops(url)[3:] == [
            ("update", "a"), ("update", "b"), ("delete", None), ("insert", None)
        ]  # fmt: skip


def test_values_arrive_exactly(postgres: Any) -> None:
    text = "naïve 茶 🍵 \"quoted\", 'single'; back\\slash\\n\n\r\ttab\x01 "
    rows = [
        {
            "id": 2**63 - 1, "small": -(2**15), "real": 0.1 + 0.2, "flag": True,
            "day": dt.date(2016, 2, 29), "at": dt.datetime(2017, 1, 2, 3, 4, 5, 6, dt.UTC),
            "plain": dt.datetime(2017, 7, 1, 23, 59, 59, 999999, dt.UTC),
            "paid": Decimal("-12345678.0001"), "any_number": Decimal("0.5000000000"),
            "word": text, "padded": "ab", "code": "", "colour": "green",
            "ident": "00000000-0000-0000-0000-00000000000a", "extra": '{"a": [1, null]}',
        },
        dict.fromkeys(EXACT_COLUMNS) | {"id": -1},
        dict.fromkeys(EXACT_COLUMNS) | {"id": 0, "word": "", "code": "NULL", "padded": r"\N"},
    ]  # fmt: skip
    with database(postgres, EXACT) as url, connect(url) as db:
        table = {"key": ["id"], "columns": EXACT_COLUMNS, "ignore": ["skipped"]}
        shop = _only(shop_with({"exact": table}), "exact")
        extract.install(url, shop)
        for row in rows:
            holes = ", ".join(["%s"] * len(row))
            naive = row | {"plain": row["plain"] and row["plain"].replace(tzinfo=None)}
            db.execute(
                f"INSERT INTO exact ({', '.join(row)}) VALUES ({holes})", list(naive.values())
            )
        changes = taken(url, shop, "exact")
        assert changes.select(list(EXACT_COLUMNS)).to_pylist() == rows
        db.execute("DELETE FROM exact")
        db.execute("INSERT INTO exact (id, at, day, word) VALUES (1, 'infinity', '-infinity', 'x')")
        last = taken(url, shop, "exact").to_pylist()[-1]
        assert (last["at"], last["day"]) == (None, None)
        outside = ("day: -infinity does not fit date", "at: infinity does not fit timestamp")
        assert last[MISFITS] == " | ".join(outside)


def _only(shop: Shop, table: str) -> Shop:
    """The shop with one captured table; the rest of the declaration stays as it is."""
    return shop.model_copy(update={"tables": {table: shop.tables[table]}})


def test_personal_values_stay_out(shop_url: str, tmp_path: Path) -> None:
    with connect(shop_url) as db:
        db.execute("INSERT INTO web.users VALUES ('u1', 'eve@example.org', 'Ulm')")
        extract.install(shop_url, tiny(), OPENING)
        db.execute(
            "INSERT INTO web.users VALUES ('u2', 'bob@example.org', 'Ulm'), ('u3', NULL, NULL)"
        )
        db.execute("UPDATE web.users SET email = 'new@example.org'")
        columns = db.execute(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = 'freshrank_tiny' AND table_name = 'changes_users'"
        ).fetchall()
    assert ("email",) not in columns
    run = Run(settings_for(tmp_path, shop_url), tiny(), Interval.of("2026-01-05", "2100-01-04"))
    source = TriggerSource(shop_url, tiny(), run.settings)
    with source.changes("users", utc("2100-01-04"), None) as changes:
        run.lake.replace(
            "changes/users",
            WEEK,
            pa.RecordBatchReader.from_batches(changes.schema, changes.batches),
        )
    rows = run.lake.read("changes/users").to_pylist()
    pseudonym = hmac.new(KEY.encode(), b"Ulm", hashlib.sha256).hexdigest()
    assert [row["city"] for row in rows] == [pseudonym, pseudonym, None]
    assert [row["_op"] for row in rows] == ["insert"] * 3
    stored = b"".join(p.read_bytes() for p in (tmp_path / "lake").rglob("*") if p.is_file())
    assert b"Ulm" not in stored
    assert b"example.org" not in stored


def test_a_missing_key_is_named_before_anything_is_read(shop_url: str, tmp_path: Path) -> None:
    extract.install(shop_url, tiny(), OPENING)
    run = Run(settings_for(tmp_path, shop_url, key=None), tiny(), WEEK)
    with pytest.raises(SettingsError, match=r"users\.city.*FRESHRANK_PSEUDONYM_KEY"):
        extract.run(run, "users")
    assert not run.lake.exists("changes/users")
    assert extract.run(run, "articles").rows == 0


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("ALTER TABLE web.articles ADD discount int",
         r"articles\.discount is new.*shops/tiny/shop\.yaml.*`ignore`"),
        ("ALTER TABLE web.articles RENAME maker TO makers",
         r"articles\.maker is declared.*'makers'.*`tables\.articles\.columns`"),
        ("ALTER TABLE web.articles ALTER amount TYPE numeric(12, 3)",
         r"articles\.amount .*decimal\(10,2\).*numeric\(12,3\).*`tables.*amount`"),
        ("ALTER TABLE web.shown ALTER place TYPE bigint",
         r"shown\.place .*int32.*bigint, accepted: int2, int4"),
        ("ALTER TABLE web.articles ALTER kind TYPE text[] USING ARRAY[kind]",
         r"articles\.kind .*string.*text\[\]"),
        ("ALTER TABLE web.articles RENAME TO article",
         r"web\.articles is declared.*'article'.*`tables`"),
    ],
)  # fmt: skip
def test_a_table_that_departs_from_its_declaration_is_named(
    shop_url: str, tmp_path: Path, statement: str, expected: str
) -> None:
    extract.install(shop_url, tiny(), OPENING)
    with connect(shop_url) as db:
        db.execute(statement)
    table = "shown" if "shown" in statement else "articles"
    with pytest.raises(SchemaDrift, match=expected):
        extract.run(Run(settings_for(tmp_path, shop_url), tiny(), WEEK), table)
    with pytest.raises(SchemaDrift, match=expected):
        extract.install(shop_url, tiny(), OPENING)
    assert re.search(expected, "; ".join(extract.check(shop_url, tiny())))


def test_capture_that_was_never_installed_is_named(shop_url: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureMissing, match=r"articles are not captured.*capture install"):
        extract.run(Run(settings_for(tmp_path, shop_url), tiny(), WEEK), "articles")


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE web.articles DISABLE TRIGGER ALL",
        "DROP TRIGGER freshrank_tiny_update ON web.articles",
        "ALTER TABLE web.articles RENAME TO gone; CREATE TABLE web.articles (LIKE web.gone); "
        "INSERT INTO web.articles TABLE web.gone",
    ],
    ids=["disabled", "dropped", "another table"],
)
def test_damaged_capture_stops_and_catches_up(shop_url: str, damage: str) -> None:
    with connect(shop_url) as db:
        db.execute("INSERT INTO web.articles VALUES ('a'), ('b'), ('c')")
        extract.install(shop_url, tiny())
        db.execute("UPDATE web.articles SET kind = 'seen' WHERE sku = 'c'")
        db.execute(damage)
        source = TriggerSource(shop_url, tiny(), settings_for(Path(), shop_url))
        with pytest.raises(CaptureMissing, match="articles was switched off"):
            source.check("articles")
        db.execute("SET session_replication_role = replica")  # nobody is looking
        db.execute("ALTER TABLE web.articles DISABLE TRIGGER ALL")
        db.execute("DELETE FROM web.articles WHERE sku = 'a'")
        db.execute("UPDATE web.articles SET kind = 'missed' WHERE sku = 'b'")
        db.execute("INSERT INTO web.articles VALUES ('d')")
    assert extract.install(shop_url, tiny()) == ["articles"]
    assert ops(shop_url)[4:] == [("delete", "a"), ("update", "b"), ("insert", "d")]
    assert extract.check(shop_url, tiny()) == []


def test_the_shop_can_always_write(shop_url: str) -> None:
    """A change that cannot be captured stops extraction, never the shop."""
    shop = tiny()
    with connect(shop_url) as db:
        extract.install(shop_url, shop)
        db.execute("ALTER TABLE web.articles DROP maker")
        for sku in "abc":
            db.execute("INSERT INTO web.articles (sku) VALUES (%s)", [sku])
        gone, failed = extract.check(shop_url, shop)
        assert "articles.maker" in gone
        assert re.search("capture of articles failed.*maker.*capture install", failed)
        faults = db.execute("SELECT count(*) FROM freshrank_tiny.faults").fetchone()
        assert faults == (1,)
        db.execute("ALTER TABLE web.articles ADD maker text")
    assert extract.install(shop_url, shop) == ["articles"]
    assert ops(shop_url) == [("insert", sku) for sku in "abc"]


def test_a_declaration_that_changes_is_followed(shop_url: str) -> None:
    before = tiny()
    columns = before.tables["articles"].columns
    fewer = before.tables["articles"].model_copy(
        update={"columns": {n: k for n, k in columns.items() if n != "maker"}, "ignore": ["maker"]}
    )
    without = before.model_copy(update={"tables": {**before.tables, "articles": fewer}})
    with connect(shop_url) as db:
        db.execute("INSERT INTO web.articles VALUES ('a', 'tea', 'm', 1), ('b', 'tea', NULL, 1)")
        extract.install(shop_url, without)
        assert extract.install(shop_url, before) == ["articles"]
        assert ops(shop_url) == [("insert", "a"), ("insert", "b"), ("update", "a")]
        assert extract.install(shop_url, without) == ["articles"]
        held = db.execute("SELECT to_jsonb(c) ? 'maker' FROM freshrank_tiny.changes_articles AS c")
        assert held.fetchone() == (False,)
        users = before.model_copy(
            update={"tables": {k: t for k, t in before.tables.items() if k != "shown"}}
        )
        extract.install(shop_url, users)
        gone = db.execute("SELECT to_regclass('freshrank_tiny.changes_shown') IS NULL").fetchone()
        assert gone == (True,)


def test_rows_cannot_be_taken_as_of_a_time_before_known_changes(shop_url: str) -> None:
    with connect(shop_url) as db:
        extract.install(shop_url, tiny())
        db.execute("INSERT INTO web.articles VALUES ('a')")
        db.execute("DROP TRIGGER freshrank_tiny_update ON web.articles")
    with pytest.raises(CaptureMissing, match="capture remove"):
        extract.install(shop_url, tiny(), OPENING)


def test_the_shops_own_account_needs_no_rights_on_the_changes(shop_url: str) -> None:
    with connect(shop_url) as db:
        extract.install(shop_url, tiny())
        db.execute(
            "CREATE ROLE till_{0}; GRANT USAGE ON SCHEMA web TO till_{0}; "
            "GRANT ALL ON web.articles TO till_{0}".format(name := db.info.dbname)
        )
        try:
            db.execute(f"SET ROLE till_{name}")
            db.execute("INSERT INTO web.articles VALUES ('a')")
        finally:
            db.execute("RESET ROLE")
            db.execute(f"DROP OWNED BY till_{name}; DROP ROLE till_{name}")
    assert ops(shop_url) == [("insert", "a")]


def test_no_row_slips_between_the_rows_found_and_the_first_change(shop_url: str) -> None:
    """Writers go on while capture is installed."""
    stop = threading.Event()

    def write(writer: int) -> None:
        with connect(shop_url) as db:
            number = 0
            while not stop.is_set():
                number += 1
                with db.transaction():
                    for part in "ab":
                        db.execute(
                            "INSERT INTO web.articles VALUES (%s)", [f"{writer}.{number}.{part}"]
                        )

    writers = [threading.Thread(target=write, args=[each]) for each in range(3)]
    for each in writers:
        each.start()
    time.sleep(0.3)
    extract.install(shop_url, tiny())
    time.sleep(0.3)
    stop.set()
    for each in writers:
        each.join()
    with connect(shop_url) as db:
        present = db.execute("SELECT sku FROM web.articles ORDER BY 1").fetchall()
    captured = [sku for _, sku in ops(shop_url)]
    assert len(captured) > 100
    assert sorted(captured) == sorted(sku for (sku,) in present)


def test_a_bulk_statement_after_a_small_one_stays_cheap(shop_url: str) -> None:
    extract.install(shop_url, tiny())
    with connect(shop_url) as db:
        db.execute("INSERT INTO web.articles VALUES ('x', 'tea', 'm', 1)")
        db.execute("UPDATE web.articles SET kind = 'one'")
        db.execute("DELETE FROM web.articles")
        db.execute(
            "INSERT INTO web.articles SELECT i, 'tea', 'm', 1 FROM generate_series(1, 30000) i"
        )
        began = time.monotonic()
        db.execute("UPDATE web.articles SET amount = amount + 1")
        db.execute("DELETE FROM web.articles")
        assert time.monotonic() - began < 10
    assert len(ops(shop_url)) == 3 + 3 * 30_000


def test_what_is_read_follows_the_change_not_the_history(shop_url: str) -> None:
    """Law 11: the part that was taken already is not scanned again."""
    extract.install(shop_url, tiny())
    source = TriggerSource(shop_url, tiny(), settings_for(Path(), shop_url))
    with connect(shop_url) as db:
        for week in range(20):
            with db.transaction():
                at = utc("2017-01-03") + dt.timedelta(weeks=week)
                db.execute("SELECT set_config('freshrank.clock', %s, true)", [at.isoformat()])
                db.execute(
                    "INSERT INTO web.articles SELECT %s || '.' || i "
                    "FROM generate_series(1, 2000) i",
                    [week],
                )
        db.execute("ANALYZE freshrank_tiny.changes_articles")
        position = None
        for week in range(20):
            end = utc("2017-01-09") + dt.timedelta(weeks=week)
            with source.changes("articles", end, position) as changes:
                assert sum(batch.num_rows for batch in changes.batches) == 2000
                position = changes.position
        plan = _plan(db, position, utc("2017-05-29"))
    scans = re.findall(r"(\w+ \w+) (?:using \w+ )?on changes_articles", plan)
    assert scans, plan
    assert "Seq Scan" not in scans, plan


def _at(db: Any, moment: str, statement: str) -> None:
    db.execute("SELECT set_config('freshrank.clock', %s, true)", [moment])
    db.execute(statement)


def _weeks(url: str, table: str, key: str) -> list[list[str]]:
    """What the weeks that end on 9, 16 and 23 January take."""
    source, found, position = TriggerSource(url, tiny(), settings_for(Path(), url)), [], None
    for day in (9, 16, 23):
        with source.changes(table, utc(f"2017-01-{day:02d}"), position) as changes:
            found.append([row[key] for batch in changes.batches for row in batch.to_pylist()])
            position = changes.position
    return found


def test_a_transaction_on_both_sides_of_an_end_is_taken_whole(shop_url: str) -> None:
    extract.install(shop_url, tiny(), OPENING)
    with connect(shop_url) as db:
        with db.transaction():
            _at(db, "2017-01-08 23:00+00", "INSERT INTO web.articles VALUES ('before')")
        with db.transaction():
            _at(db, "2017-01-08 23:58+00", "INSERT INTO web.articles VALUES ('long')")
            _at(db, "2017-01-08 23:59+00", "INSERT INTO web.users VALUES ('long')")
            _at(db, "2017-01-09 00:01+00", "INSERT INTO web.articles VALUES ('long too')")
            _at(db, "2017-01-09 00:02+00", "DELETE FROM web.users WHERE uid = 'nobody'")
        with db.transaction():
            _at(db, "2017-01-16 01:00+00", "UPDATE web.articles SET kind = 'k' WHERE sku = 'long'")
    assert _weeks(shop_url, "articles", "sku") == [["before"], ["long", "long too"], ["long"]]
    assert _weeks(shop_url, "users", "uid") == [[], ["long"], []]


def test_a_commit_between_two_tables_extractions_is_in_one_interval(shop_url: str) -> None:
    extract.install(shop_url, tiny(), OPENING)
    source, end = TriggerSource(shop_url, tiny(), settings_for(Path(), shop_url)), utc("2017-01-09")
    with connect(shop_url) as late, late.transaction():
        _at(late, "2017-01-08 23:58+00", "INSERT INTO web.articles VALUES ('late')")
        _at(late, "2017-01-08 23:58+00", "INSERT INTO web.users VALUES ('late')")
        with source.changes("articles", end, None) as changes:
            assert sum(batch.num_rows for batch in changes.batches) == 0
    assert _weeks(shop_url, "users", "uid") == [[], ["late"], []]
    assert _weeks(shop_url, "articles", "sku") == [[], ["late"], []]


def _plan(db: Any, position: Any, before: dt.datetime) -> str:
    from pipelines.extract.trigger.postgres.query import changes_query
    from pipelines.extract.trigger.postgres.sql import Capture

    query, bound = changes_query(
        Capture(tiny(), "articles"), before, position, position["snapshot"]
    )
    return "\n".join(row for (row,) in db.execute(f"EXPLAIN {query}", bound).fetchall())


def test_a_database_that_is_away_is_a_transient_error(postgres: Any) -> None:
    url = postgres.url("no_such_database")
    with pytest.raises(SourceUnavailable, match="does not answer") as caught:
        extract.check(url, tiny())
    assert postgres.password not in str(caught.value)
    with pytest.raises(SettingsError, match="knows no database 'oracle'"):
        extract.check("oracle://host/shop", tiny())
