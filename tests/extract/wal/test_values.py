"""What PostgreSQL's log carries arrives exactly: types, large values, drift, personal columns."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from local.servers.postgres import PostgresServer
from pipelines.extract.databases.postgres import copy
from pipelines.shared.columns import MISFITS
from pipelines.shared.errors import SchemaDrift
from tests.extract.postgres_shop import TABLES
from tests.extract.trigger.postgres.test_source import EXACT, EXACT_COLUMNS
from tests.extract.wal.wal_shop import WalShop, captured, wal_shop

pytestmark = pytest.mark.services

EXACT_TABLE = {"exact": {"key": ["id"], "columns": EXACT_COLUMNS, "ignore": ["skipped"]}}
VALUES = {
    "id": 9_223_372_036_854_775_807,
    "small": -32_768,
    "real": 0.1 + 0.2,
    "flag": False,
    "day": dt.date(2016, 2, 29),
    "at": dt.datetime(2017, 1, 2, 3, 4, 5, 678901, dt.UTC),
    "plain": dt.datetime(1969, 12, 31, 23, 59, 59, 999999, dt.UTC),
    "paid": Decimal("12345678.9012"),
    "any_number": Decimal("-0.0000000001"),
    "word": 'Grüße, "日本"\n\\N\t',
    "padded": "ab",
    "code": "",
    "colour": "green",
    "ident": "6d0f0d1c-0000-4000-8000-00000000000a",
    "extra": '{"a": [1, null]}',
}


@pytest.fixture(params=["logical_postgres", "debian_postgres"])
def server(request: pytest.FixtureRequest) -> PostgresServer:
    found: PostgresServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def exact(server: PostgresServer, tmp_path: Path) -> Iterator[WalShop]:
    """Every table in `public`, where the types' test has its own."""
    tables = TABLES.replace("CREATE SCHEMA web;", "").replace("web.", "public.") + EXACT
    with captured(server, tmp_path, wal_shop(EXACT_TABLE, "public"), tables) as made:
        yield made


@pytest.fixture
def shop(server: PostgresServer, tmp_path: Path) -> Iterator[WalShop]:
    with captured(server, tmp_path) as made:
        yield made


def insert(shop: WalShop, **values: Any) -> None:
    names, holes = ", ".join(values), ", ".join(["%s"] * len(values))
    shop.db.execute(f"INSERT INTO exact ({names}) VALUES ({holes})", list(values.values()))


def without_own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if not name.startswith("_")} for row in rows]


@pytest.mark.parametrize("found", [True, False], ids=["rows found", "changes"])
def test_values_arrive_exactly(exact: WalShop, found: bool) -> None:
    start = None if found else exact.take(table="exact")[1]
    insert(exact, **VALUES)
    insert(exact, id=2)
    insert(exact, id=3, real=float("-inf"), at="infinity", plain="-infinity", day="infinity")
    insert(exact, id=4, at="0044-03-15 12:00 BC", plain="12017-01-01", day="0044-03-15 BC")
    changes, _ = exact.take(None, start, None, "exact")
    full, null, endless, beyond = without_own(changes.to_pylist())
    assert full == VALUES
    assert null == dict.fromkeys(VALUES) | {"id": 2}
    assert endless["real"] == float("-inf")
    for row in (endless, beyond):
        assert [row[name] for name in ("at", "plain", "day")] == [None, None, None]
    assert changes[MISFITS].to_pylist()[2:] == [
        "day: infinity does not fit date | at: infinity does not fit timestamp | "
        "plain: -infinity does not fit timestamp",
        "day: 0044-03-15 BC does not fit date | at: 0044-03-15 12:00:00+00 BC does not fit "
        "timestamp | plain: 12017-01-01 00:00:00 does not fit timestamp",
    ]


def test_large_values_survive_an_update_beside_them(
    shop: WalShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log does not repeat a large value that an update left alone."""
    shop.run("ALTER TABLE web.articles ALTER COLUMN kind SET STORAGE EXTERNAL")
    wide = "INSERT INTO web.articles SELECT '{0} ' || i, repeat(i || '{1}', 400000), NULL, 1 "
    wide += "FROM generate_series(1, 5) AS i"
    shop.run(wide.format("found", "ü"))
    first, start = shop.take()
    monkeypatch.setattr(copy, "BATCH_BYTES", 1 << 20)
    shop.run(wide.format("new", "é"))
    shop.run("UPDATE web.articles SET amount = 2", "UPDATE web.articles SET sku = 'x' || sku")
    shop.run("UPDATE web.articles SET kind = NULL WHERE sku LIKE '%1'")
    second, _ = shop.take(None, start)
    assert second["_op"].to_pylist().count("update") == 12
    assert all(second["kind"].is_valid().to_pylist()[:-2])
    assert shop.folded(first, second) == shop.rows()


def test_personal_values_stay_out(shop: WalShop) -> None:
    key = b"a key for tests"
    shop.run("INSERT INTO web.users VALUES ('a', 'a@example.org', 'Köln')")
    first, start = shop.take(table="users")
    shop.run("UPDATE web.users SET email = 'b@example.org', city = NULL")
    second, _ = shop.take(None, start, None, "users")
    assert "email" not in first.column_names
    assert first["city"].to_pylist() == [hmac.digest(key, "Köln".encode(), hashlib.sha256).hex()]
    assert second.select(["uid", "city", "_op"]).to_pylist() == [
        {"uid": "a", "city": None, "_op": "update"}
    ]


def test_a_column_that_comes_is_refused_until_it_is_declared(shop: WalShop) -> None:
    shop.run("ALTER TABLE web.articles ADD COLUMN colour text")
    with pytest.raises(SchemaDrift, match=r"articles\.colour is new; add it to"):
        shop.source.check("articles")


def test_changes_from_before_the_table_was_altered_are_never_misread(shop: WalShop) -> None:
    _, start = shop.take()
    shop.run("INSERT INTO web.articles VALUES ('a', 'tea', 'x', 1)")
    middle = shop.now()
    shop.run("ALTER TABLE web.articles RENAME COLUMN maker TO brand")
    shop.run("INSERT INTO web.articles VALUES ('b', 'tea', 'y', 1)")
    shop.run("ALTER TABLE web.articles RENAME COLUMN brand TO maker")
    shop.run("ALTER TABLE web.articles DROP COLUMN kind, ADD COLUMN kind text")
    shop.run("INSERT INTO web.articles VALUES ('c', 'z', 1, 'green')")
    assert shop.take(middle, start)[0]["maker"].to_pylist() == ["x"]
    with pytest.raises(SchemaDrift, match=r"was otherwise: articles\.maker .*brand"):
        shop.take(None, start)


def test_columns_are_read_by_name(shop: WalShop) -> None:
    _, start = shop.take()
    shop.run("INSERT INTO web.articles VALUES ('a', 'tea', 'x', 1)")
    shop.run("ALTER TABLE web.articles DROP COLUMN kind, ADD COLUMN kind text")
    shop.run("INSERT INTO web.articles VALUES ('b', 'y', 2, 'milk')")
    changes, _ = shop.take(None, start)
    assert changes["kind"].to_pylist() == ["tea", "milk"]
    assert changes["maker"].to_pylist() == ["x", "y"]
