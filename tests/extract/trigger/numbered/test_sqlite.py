"""Trigger capture in SQLite: what REPLACE pushes out, cascades, values without a type."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines import extract
from pipelines.shared.errors import CaptureMissing, SettingsError, SourceUnavailable
from pipelines.shared.intervals import utc
from tests.extract.trigger.trigger_shop import TriggerShop, in_sqlite, only

PEOPLE = """
    CREATE TABLE people (id integer PRIMARY KEY, email text UNIQUE COLLATE NOCASE, name text);
    CREATE TABLE pets (name text PRIMARY KEY, owner integer
                       REFERENCES people (id) ON DELETE CASCADE ON UPDATE CASCADE);
"""
PERSON = {"key": ["id"], "columns": {"id": "int64", "email": "string", "name": "string"}}


def people(web: TriggerShop) -> list[tuple[str, int, str | None]]:
    changes, _ = web.take(table="people")
    columns = (changes[name].to_pylist() for name in ("_op", "id", "name"))
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_what_replace_pushes_out_is_deleted(tmp_path: Path, recursive: str) -> None:
    with in_sqlite(tmp_path, PEOPLE) as web:
        web.shop = only(web.shop, "people", PERSON)
        web.install()
        db = web.connect()
        web.run(
            f"PRAGMA recursive_triggers = {recursive}",
            "INSERT INTO people VALUES (1, 'a', 'Ann'), (2, 'b', 'Bob'), (3, 'c', 'Cy')",
            "INSERT OR REPLACE INTO people VALUES (2, 'A', 'Eve')",  # both 1 and 2 go
            "INSERT OR IGNORE INTO people VALUES (9, 'c', 'nobody')",
            "UPDATE OR REPLACE people SET email = 'a' WHERE id = 3",  # 2 goes
            "UPDATE OR REPLACE people SET id = 5",
            "INSERT INTO people (email) VALUES ('new')",
            "INSERT OR REPLACE INTO people VALUES (5, 'a', 'Cy')",  # as it is
            db=db,
        )
        pushed_out = people(web)
        present = web.run("SELECT id, email, name FROM people ORDER BY id")
        changes, _ = web.take(table="people")
    live: dict[int, Any] = {}
    for row in changes.to_pylist():
        assert (row["_op"] == "insert") == (row["id"] not in live)
        live.pop(row["id"], None)
        if row["_op"] != "delete":
            live[row["id"]] = (row["id"], row["email"], row["name"])
    assert sorted(live.values()) == present == [(5, "a", "Cy"), (6, "new", None)]
    assert ("delete", 1, "Ann") in pushed_out
    assert ("delete", 2, "Eve") in pushed_out


def test_cascades_are_seen(tmp_path: Path) -> None:
    pets = {"key": ["name"], "columns": {"name": "string", "owner": "int64"}}
    with in_sqlite(tmp_path, PEOPLE) as web:
        web.shop = only(web.shop, "pets", pets)
        web.install()
        web.run(
            "PRAGMA foreign_keys = ON",
            "INSERT INTO people (id) VALUES (1)",
            "INSERT INTO pets VALUES ('cat', 1)",
            "UPDATE people SET id = 2",
            "DELETE FROM people",
            db=web.connect(),
        )
        assert web.ops("pets", "name") == [("insert", "cat"), ("update", "cat"), ("delete", "cat")]


def test_an_index_on_an_expression_is_refused(tmp_path: Path) -> None:
    with in_sqlite(tmp_path, PEOPLE) as web:
        web.shop = only(web.shop, "people", PERSON)
        web.run("CREATE UNIQUE INDEX lowered ON people (lower(name))")
        with pytest.raises(CaptureMissing, match="unique index on an expression"):
            web.install()
        assert web.run("SELECT name FROM sqlite_master WHERE name LIKE 'freshrank%'") == []


COLUMNS = {
    "id": "int64", "real_": "float64", "flag": "bool", "day": "date", "at": "timestamp",
    "paid": "decimal(12,4)", "exact": "decimal(38,10)", "word": "string",
}  # fmt: skip
EXACT = """
    CREATE TABLE exact (id integer PRIMARY KEY, real_ double, flag boolean, day date, at datetime,
                        paid decimal(12, 4), exact decimal(38, 10), word text, skipped blob);
"""


def test_values_arrive_exactly(tmp_path: Path) -> None:
    text = "naïve 茶 🍵 \"quoted\", 'single'; back\\slash\\n\n\r\ttab\x01 \x00"
    at = dt.datetime(2017, 1, 2, 3, 4, 5, 999999, dt.UTC)
    rows: list[dict[str, Any]] = [
        {
            "id": 2**63 - 1, "real_": 0.1 + 0.2, "flag": True, "day": dt.date(2016, 2, 29),
            "at": at, "paid": Decimal("12345678.9012"), "exact": Decimal("0.1"), "word": text,
        },
        dict.fromkeys(COLUMNS) | {"id": -(2**63)},
        dict.fromkeys(COLUMNS) | {"id": 0, "word": "", "flag": False, "paid": Decimal("0.0001")},
    ]  # fmt: skip
    table = {"key": ["id"], "columns": COLUMNS, "commit_time": "at", "ignore": ["skipped"]}
    with in_sqlite(tmp_path, EXACT) as web:
        web.shop = only(web.shop, "exact", table)
        web.install()
        db = web.connect()
        for row in rows:
            given = [
                str(each)[:26] if isinstance(each, dt.datetime)
                else str(each) if isinstance(each, (dt.date, Decimal)) else each
                for each in row.values()
            ]  # fmt: skip
            db.execute(f"INSERT INTO exact ({', '.join(row)}) VALUES ({'?, ' * 7}?)", given)
        changes, _ = web.take(table="exact")
        assert changes.select(list(COLUMNS)).to_pylist() == rows
        assert changes["_committed_at"][0].as_py() == at
        for moment, meant in (
            ("2017-01-02T03:04:05.5", at.replace(microsecond=500_000)),
            ("2017-01-02 05:04:05.250+02:00", at.replace(microsecond=250_000)),
        ):
            db.execute("INSERT INTO exact (at) VALUES (?)", [moment])
            last = web.take(table="exact")[0].to_pylist()[-1]
            assert (last["at"], last["_committed_at"]) == (meant, meant)
            db.execute("DELETE FROM exact WHERE id = (SELECT max(id) FROM exact WHERE day IS NULL)")
        db.execute("INSERT INTO exact (id, paid) VALUES (7, '0.12345')")
        last = web.take(table="exact")[0].to_pylist()[-1]
        assert (last["paid"], last["_misfits"]) == (
            None,
            "paid: 0.12345 does not fit decimal(12,4)",
        )


def test_a_long_transaction_waits_whole_for_a_later_interval(tmp_path: Path) -> None:
    with in_sqlite(tmp_path) as web:
        web.install()
        db = web.connect()
        web.run("BEGIN IMMEDIATE", db=db)
        web.stamp(db, utc("2017-01-03"))
        web.run("INSERT INTO articles (sku) VALUES ('a'), ('b')", db=db)
        rows, position = web.take("2017-01-09")
        assert rows.num_rows == 0
        web.run("INSERT INTO articles (sku) VALUES ('c')", "COMMIT", db=db)
        rows, position = web.take("2017-01-16", position)
        assert rows["sku"].to_pylist() == ["a", "b", "c"]
        assert web.take("2017-01-23", position)[0].num_rows == 0


def test_a_writer_that_does_not_end_is_waited_for_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.extract.databases.sqlite.connection.WAIT_S", 0.2)
    with in_sqlite(tmp_path) as web:
        db = web.connect()
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(SourceUnavailable, match="locked"):
            web.install()
        db.execute("ROLLBACK")
        assert web.install() != []


def test_a_file_that_is_away_is_named(tmp_path: Path) -> None:
    with in_sqlite(tmp_path) as web:
        with pytest.raises(SourceUnavailable, match=r"gone\.db does not answer"):
            extract.check(f"sqlite:///{tmp_path}/gone.db", web.shop)
        assert not (tmp_path / "gone.db").exists()
        with pytest.raises(SettingsError, match="names no file"):
            extract.check("sqlite://", web.shop)
        with pytest.raises(SettingsError, match="knows no database 'oracle'"):
            extract.check("oracle://h/d", web.shop)
