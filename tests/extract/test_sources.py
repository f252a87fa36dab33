"""A shop with several databases: each captured its own way, none waiting for another."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import make_url

from benchmarks.servers import mariadb as mariadb_server
from benchmarks.servers.mariadb import MariadbServer
from benchmarks.servers.postgres import connect
from local.servers.postgres import PostgresServer
from pipelines import extract, loop
from pipelines.inspect import doctor, freshness, status
from pipelines.shared.declaration import load_shop
from pipelines.shared.errors import DeclarationError, SourceUnavailable
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.run import Installation
from pipelines.shared.settings import Settings
from tests.extract.postgres_shop import DECLARED, PostgresTransaction, database

PROJECT = Path(__file__).parents[2]
WEEKS = [Interval.of("2017-01-02", "2017-01-09"), Interval.of("2017-01-09", "2017-01-16")]
CATALOGUE = ("articles", "users")
ORDERS = ("actions", "shown")
MARIADB = """
    CREATE TABLE articles (sku varchar(40) PRIMARY KEY, kind text, maker text,
                           amount decimal(10, 2), touched datetime(6) NOT NULL);
    CREATE TABLE users (uid varchar(40) PRIMARY KEY, email text, city text,
                        touched datetime(6) NOT NULL);
"""


def declared(schema: str) -> dict[str, Any]:
    """The tiny shop with its orders in PostgreSQL and its catalogue in MariaDB."""
    shop: dict[str, Any] = yaml.safe_load((DECLARED / "tiny" / "shop.yaml").read_text())
    shop["sources"] = {
        "orders": {"connection": "orders", "capture": "trigger", "schema": "web"},
        "catalogue": {"connection": "catalogue", "capture": "cursor", "schema": schema},
    }
    for name, table in shop["tables"].items():
        table["source"] = "catalogue" if name in CATALOGUE else "orders"
        if name in CATALOGUE:
            table["columns"]["touched"] = "timestamp"
            table["cursor"] = {"column": "touched"}
    return shop


def written(folder: Path, shop: dict[str, Any]) -> Path:
    file = folder / "shops" / "tiny" / "shop.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(shop))
    return folder / "shops"


@pytest.fixture
def installation(
    tmp_path: Path, postgres: PostgresServer, mariadb: MariadbServer, tiny_settings: Settings
) -> Iterator[Installation]:
    with database(postgres) as orders, mariadb_server.database(mariadb, MARIADB) as catalogue:
        name = str(make_url(catalogue).database)
        update = {
            "shops": written(tmp_path, declared(name)),
            "connections": {"orders": SecretStr(orders), "catalogue": SecretStr(catalogue)},
        }
        opened = Installation.open(tiny_settings.model_copy(update=update), "tiny")
        with connect(orders) as db:
            db.execute("DROP TABLE web.articles, web.users")
        extract.install(orders, opened.shop.part("orders"), utc("2017-01-01"))
        yield opened


def write(installation: Installation, day: str) -> None:
    """One article, one shopper and one list shown."""
    url = installation.settings.connection("orders")
    list_id = {"list_id": day, "sku": day, "uid": day, "place": 1, "shown_at": utc(day)}
    shown = PostgresTransaction(url, installation.shop, day)
    shown.insert("shown", list_id)
    shown.commit()
    catalogue = installation.settings.connection("catalogue")
    with mariadb_server.connect(catalogue) as db, db.cursor() as cursor:
        cursor.execute("INSERT INTO articles VALUES (%s, 'tea', 'me', 1, %s)", [day, utc(day)])
        cursor.execute("INSERT INTO users VALUES (%s, 'e', 'c', %s)", [day, utc(day)])


def extracted(installation: Installation, week: Interval) -> set[str]:
    manifests = installation.ledger.manifests("extract")
    return {each.subject for each in manifests if each.interval == week}


def keys(installation: Installation, table: str, name: str) -> list[str]:
    return sorted(installation.lake.read(f"changes/{table}").column(name).to_pylist())


@pytest.mark.services
def test_one_that_stops_in_mid_run_delays_only_its_own_tables(
    installation: Installation, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(installation, "2017-01-03")
    for table in installation.shop.tables:
        extract.run(installation.run(WEEKS[0]), table)
    write(installation, "2017-01-10")
    whole = extract.run

    def stopping(run: Any, table: str) -> Any:
        done = whole(run, table)
        if table == "articles":
            mariadb.stop(signal.SIGKILL)
        return done

    monkeypatch.setattr(extract, "run", stopping)
    try:
        with pytest.raises(SourceUnavailable, match=r"source catalogue: .*meanwhile users wait"):
            loop.run_interval(installation.run(WEEKS[1]), lambda stage, line: None)
        assert extracted(installation, WEEKS[1]) == {*ORDERS, "articles"}
        validated = installation.ledger.manifests("validate")
        assert {each.subject for each in validated if each.interval == WEEKS[1]} == {
            *ORDERS,
            "articles",
        }
        states = {each.source: each for each in freshness.sources(installation)}
        assert (states["orders"].answers, states["orders"].waiting) == (True, [])
        assert (states["catalogue"].answers, states["catalogue"].waiting) == (
            False,
            ["articles", "users"],
        )
        assert not next(iter(states["catalogue"].tables)).waits
        told = {
            each.message.split(":")[0]: each
            for each in doctor.examine(installation.settings, "tiny")
            if each.subject == "source"
        }
        assert told["orders"].well
        assert "articles, users wait" in told["catalogue"].message
        assert extract.clock(installation.run(WEEKS[1])) > WEEKS[1].end
    finally:
        mariadb.start()
    monkeypatch.undo()
    for table in installation.shop.tables:
        extract.run(installation.run(WEEKS[1]), table)
    assert extracted(installation, WEEKS[1]) == set(installation.shop.tables)
    for table, name in (("users", "uid"), ("articles", "sku"), ("shown", "sku")):
        assert keys(installation, table, name) == ["2017-01-03", "2017-01-10"]
    assert [each.fault for each in freshness.sources(installation)] == ["", ""]
    synced = status.report_of(installation)["synced"]
    assert [(each["source"], each["rows"], each["total_rows"]) for each in synced] == [
        ("catalogue", 2, 2), ("orders", 1, 1), ("catalogue", 2, 4), ("orders", 1, 2),
    ]  # fmt: skip


@pytest.mark.services
def test_the_command_line_asks_for_a_retry_and_says_which_source_is_down(
    tmp_path: Path, installation: Installation
) -> None:
    write(installation, "2017-01-03")
    settings = installation.settings
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FRESHRANK_")},
        "FRESHRANK_LAKE": settings.lake,
        "FRESHRANK_LEDGER_URL": settings.ledger_url.get_secret_value(),
        "FRESHRANK_MLFLOW_URI": settings.mlflow_uri.get_secret_value(),
        "FRESHRANK_SHOP": "tiny",
        "FRESHRANK_SHOPS": str(settings.shops),
        "FRESHRANK_EXPECTATIONS": str(settings.expectations),
        "FRESHRANK_PSEUDONYM_KEY": "key",
        "FRESHRANK_CONNECTIONS__CATALOGUE": settings.connection("catalogue"),
        "FRESHRANK_CONNECTIONS__ORDERS": "postgresql+psycopg://u:hidden@127.0.0.1:9/shop",
    }

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines", *arguments]
        return subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
        )

    ran = call("run", "--start", "2017-01-02", "--end", "2017-01-09")
    assert ran.returncode == 75
    assert "source orders" in ran.stderr
    assert extracted(installation, WEEKS[0]) == set(CATALOGUE)
    assert "hidden" not in ran.stderr
    shown = call("status").stdout
    assert "down" in shown
    assert "(waits)" in shown
    installed = call("capture", "install")
    assert installed.returncode == 75
    assert "capture install: catalogue: " in installed.stderr


@pytest.mark.services
def test_two_sources_in_one_database_keep_to_themselves(
    tmp_path: Path, postgres: PostgresServer, tiny_settings: Settings
) -> None:
    shop = declared("other")
    shop["sources"]["catalogue"]["capture"] = "trigger"
    for name in CATALOGUE:
        del shop["tables"][name]["cursor"], shop["tables"][name]["columns"]["touched"]
    parts = load_shop("tiny", written(tmp_path, shop)).parts()
    with database(postgres) as url:
        with connect(url) as db:
            db.execute("CREATE SCHEMA other")
            for table in CATALOGUE:
                db.execute(f"ALTER TABLE web.{table} SET SCHEMA other")
        for part in parts:
            assert extract.install(url, part) == sorted(part.tables)
        assert [extract.check(url, part) for part in parts] == [[], []]
        extract.remove(url, parts[1])
        assert extract.check(url, parts[0]) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("tables", "users", "source"), "catalog", r"'catalog' is not a source; did you mean"),
        (("tables", "users", "source"), None, r"tables\.users\.source: is required where"),
        (("sources", "more"), {"connection": "c"}, r"sources\.more: no table names it"),
        (("tables", "users", "cursor"), None, r"`cursor` is required of every table.*users"),
        (("surfaces", 0, "publish_in"), "x", r"surfaces\[0\]\.publish_in: 'x' is not a source"),
    ],
)
def test_a_wrong_source_is_named(tmp_path: Path, path: Any, value: Any, expected: str) -> None:
    shop = copy.deepcopy(declared("shop"))
    place: Any = shop
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(DeclarationError, match=expected):
        load_shop("tiny", written(tmp_path, shop))


def test_lists_are_published_where_the_shoppers_are_unless_said_otherwise(tmp_path: Path) -> None:
    shop = declared("shop")
    assert load_shop("tiny", written(tmp_path, shop)).published_in.connection == "catalogue"
    shop["surfaces"][0]["publish_in"] = "orders"
    assert load_shop("tiny", written(tmp_path, shop)).published_in.connection == "orders"
