"""The bundled shop in a real PostgreSQL: replay, clock, restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from local.servers import postgres
from pipelines.shared.errors import PermanentError, SourceUnavailable
from shops.completejourney import OPENING, load
from shops.completejourney.load import SHOP_TABLES

pytestmark = pytest.mark.services

SHARE = 0.02
UNTIL = datetime(2017, 1, 30, tzinfo=UTC)
QUIET = Console(quiet=True)

CAPTURE = """
DROP TABLE IF EXISTS log;
CREATE TABLE log (seq bigserial, tab text, op text, at timestamptz, r jsonb);
CREATE OR REPLACE FUNCTION log_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log (tab, op, at, r)
    SELECT tg_table_name, left(tg_op, 1), current_setting('freshrank.clock')::timestamptz,
           to_jsonb(n) FROM new_rows AS n;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION log_old() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log (tab, op, at, r)
    SELECT tg_table_name, left(tg_op, 1), current_setting('freshrank.clock')::timestamptz,
           to_jsonb(o) FROM old_rows AS o;
    RETURN NULL;
END $$;
"""
WATCH = """
INSERT INTO log (tab, op, at, r) SELECT '{t}', 'S', %s, to_jsonb(x) FROM {t} AS x;
"""
TRIGGERS = """
CREATE TRIGGER i AFTER INSERT ON {t} REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_new();
CREATE TRIGGER u AFTER UPDATE ON {t} REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_new();
CREATE TRIGGER d AFTER DELETE ON {t} REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_old();
"""
WATCHED = [table for table in SHOP_TABLES if table != "coupons"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.PostgresServer]:
    with postgres.server(tmp_path_factory.mktemp("pg")) as running:
        yield running


def watch(server: postgres.PostgresServer, database: str) -> Callable[[datetime], None]:
    """A change log of the tests' own, so that the shop is tested without the pipelines."""

    def install(at: datetime) -> None:
        with server.connect(database) as connection:
            # No interval has ended in a shop that is half there.
            clock = "SELECT current_setting('freshrank.clock')::timestamptz"
            assert rows_of(connection, clock) == [(OPENING,)]
            connection.execute(CAPTURE)
            for table in WATCHED:
                connection.execute(WATCH.format(t=table), [at])
                connection.execute(TRIGGERS.format(t=table))

    return install


@pytest.fixture(scope="module")
def shop(server: postgres.PostgresServer) -> Iterator[psycopg.Connection]:
    rows = load(
        server.url("shop"),
        share=SHARE,
        until=UNTIL,
        install_capture=watch(server, "shop"),
        console=QUIET,
    )
    assert min(rows.values()) > 0
    with server.connect("shop") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def rows_of(connection: psycopg.Connection, query: str) -> list[tuple[object, ...]]:
    return connection.execute(query).fetchall()


def test_every_change_is_committed_at_a_tick_within_the_replay(shop: psycopg.Connection) -> None:
    [(first, last, off_tick)] = rows_of(
        shop,
        "SELECT min(at), max(at), count(*) FILTER "
        "(WHERE extract(epoch FROM at)::bigint % 10800 <> 0) FROM log WHERE op <> 'S'",
    )
    assert first > OPENING
    assert last < UNTIL
    assert off_tick == 0


def test_the_log_never_goes_back_in_time(shop: psycopg.Connection) -> None:
    [(backwards,)] = rows_of(
        shop, "SELECT count(*) FROM (SELECT at < lag(at) OVER (ORDER BY seq) AS b FROM log) WHERE b"
    )
    assert backwards == 0


def test_what_was_there_at_opening_is_captured_once_under_the_opening(
    shop: psycopg.Connection,
) -> None:
    opening = rows_of(
        shop, "SELECT tab, count(*), min(at), max(at) FROM log WHERE op = 'S' GROUP BY 1 ORDER BY 1"
    )
    assert [row[0] for row in opening] == ["households", "products", "promotions"]
    assert all(row[2] == row[3] == OPENING for row in opening)
    [(products,)] = rows_of(shop, "SELECT count(*) FROM products")
    assert products == dict(row[:2] for row in opening)["products"]


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("orders", "order_id"),
        ("products", "product_id"),
        ("promotions", "product_id, valid_from"),
        ("order_lines", "order_id, line_no"),
    ],
)
def test_the_log_ends_in_the_table(shop: psycopg.Connection, table: str, key: str) -> None:
    keys = ", ".join(f"r->>'{column}'" for column in key.split(", "))
    replayed = (
        f"SELECT r FROM (SELECT DISTINCT ON ({keys}) op, r FROM log WHERE tab = '{table}' "
        f"ORDER BY {keys}, seq DESC) AS last WHERE op <> 'D'"
    )
    present = f"SELECT DISTINCT to_jsonb(t) FROM {table} AS t"
    assert rows_of(shop, f"({replayed}) EXCEPT ({present})") == []
    assert rows_of(shop, f"({present}) EXCEPT ({replayed})") == []


def test_the_shop_lives(shop: psycopg.Connection) -> None:
    happened = {
        (table, op)
        for table, op in rows_of(shop, "SELECT DISTINCT tab, op FROM log WHERE op <> 'S'")
    }
    assert happened == {
        ("products", "U"),
        ("orders", "I"),
        ("orders", "D"),
        ("order_lines", "I"),
        ("order_lines", "U"),
        ("order_lines", "D"),
        ("promotions", "I"),
        ("promotions", "U"),
        ("promotions", "D"),
    }


def test_a_cancelled_order_takes_its_lines_with_it(shop: psycopg.Connection) -> None:
    cancelled = "SELECT r->>'order_id' FROM log WHERE tab = 'orders' AND op = 'D'"
    left = f"SELECT count(*) FROM order_lines WHERE order_id::text IN ({cancelled})"
    assert rows_of(shop, left) == [(0,)]


def test_nothing_of_a_sale_is_known_before_it_happened(shop: psycopg.Connection) -> None:
    early = rows_of(
        shop,
        "SELECT count(*) FROM log WHERE tab IN ('orders', 'order_lines') AND op = 'I' "
        "AND (r->>'ordered_at')::timestamptz > at "
        "AND (r->>'ordered_at')::timestamptz < at + interval '90 days'",
    )
    assert early == [(0,)]


def test_a_second_load_makes_the_same_changes_in_the_same_order(
    shop: psycopg.Connection, server: postgres.PostgresServer
) -> None:
    load(
        server.url("ledger"),
        share=SHARE,
        until=UNTIL,
        install_capture=watch(server, "ledger"),
        console=QUIET,
    )
    whole = "SELECT md5(string_agg(log::text, ';' ORDER BY seq)) FROM log"
    with server.connect("ledger") as other:
        other.execute("SET TimeZone = 'UTC'")
        assert rows_of(other, whole) == rows_of(shop, whole)


def test_the_clock_stands_at_the_end_of_the_replay(
    shop: psycopg.Connection, server: postgres.PostgresServer
) -> None:
    with server.connect("shop") as fresh:
        assert rows_of(fresh, "SELECT current_setting('freshrank.clock')::timestamptz") == [
            (UNTIL,)
        ]


def is_whole(server: postgres.PostgresServer, database: str) -> bool:
    with server.connect(database) as connection:
        return rows_of(connection, "SELECT to_regclass('replay.loaded')") != [(None,)]


def test_a_load_that_dies_is_no_shop_and_the_next_one_heals_it(
    server: postgres.PostgresServer,
) -> None:
    url, until = server.url("airflow"), datetime(2017, 1, 3, tzinfo=UTC)

    def die(at: datetime) -> None:
        raise KeyboardInterrupt

    assert not is_whole(server, "airflow")
    load(url, share=SHARE, until=until, console=QUIET)
    assert is_whole(server, "airflow")
    with pytest.raises(KeyboardInterrupt):
        load(url, share=SHARE, until=until, install_capture=die, console=QUIET)
    assert not is_whole(server, "airflow")
    load(url, share=SHARE, until=until, console=QUIET)
    assert is_whole(server, "airflow")


def test_two_loads_at_once_are_refused(server: postgres.PostgresServer) -> None:
    url, until = server.url("mlflow"), datetime(2017, 1, 3, tzinfo=UTC)

    def load_again(at: datetime) -> None:
        load(url, share=SHARE, until=until, console=QUIET)

    with pytest.raises(PermanentError, match="another process is loading"):
        load(url, share=SHARE, until=until, install_capture=load_again, console=QUIET)


def test_an_absent_server_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="cannot be reached") as caught:
        load("postgresql+psycopg://shop:geheim@127.0.0.1:1/shop", share=SHARE, until=UNTIL)
    assert "geheim" not in str(caught.value)
