"""Airflow's connections, params and errors become Freshrank's settings, intervals and retries."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("airflow", reason="install apache-airflow (`make setup`)")

from airflow.sdk import Connection, RetryAction
from freshrank_airflow import RETRIES
from freshrank_airflow.branch import task_id_of
from freshrank_airflow.runs import interval_of, latest_intervals
from freshrank_airflow.settings import database_url, server_url, settings_for

from pipelines.shared.errors import IntervalError, LedgerUnavailable, SchemaDrift
from pipelines.shared.intervals import Interval, utc

DECLARED = Path(__file__).parents[1] / "declared"
WEEK = Interval.of("2017-01-02", "2017-01-09")


def context(start=None, end=None, data=(None, None)):
    return {
        "params": {"start": start, "end": end, "shop": None},
        "data_interval_start": data[0],
        "data_interval_end": data[1],
    }


def test_params_win_over_the_data_interval():
    interval = interval_of(
        context("2017-01-02", "2017-01-09", (utc("2020-01-06"), utc("2020-01-13")))
    )
    assert interval == WEEK


def test_of_several_shops_each_publishes_its_latest_interval():
    events = [
        {"shop": shop, "start": f"2017-01-{start:02}", "end": f"2017-01-{start + 7:02}"}
        for shop, start in (("b", 9), ("a", 16), ("b", 16), ("a", 2))
    ]
    assert latest_intervals(events) == [events[1], events[2]]
    assert latest_intervals([]) == []


def test_the_data_interval_serves_without_params():
    assert interval_of(context(data=(WEEK.start, WEEK.end))) == WEEK


@pytest.mark.parametrize("given", [context(), context(start="2017-01-02")])
def test_without_an_interval_the_way_out_is_named(given):
    with pytest.raises(IntervalError, match=r"`?start`? and `?end`?"):
        interval_of(given)


def test_a_run_without_width_is_refused():
    with pytest.raises(IntervalError):
        interval_of(context(data=(WEEK.start, WEEK.start)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {
                "conn_type": "postgres",
                "host": "db",
                "port": 5432,
                "login": "u",
                "password": "p@ss",
                "schema": "s",
            },
            "postgresql+psycopg://u:p%40ss@db:5432/s",
        ),
        ({"conn_type": "mysql", "host": "db", "schema": "s"}, "mysql+pymysql://db/s"),
    ],
)
def test_a_connection_becomes_a_database_url(given, expected):
    assert database_url(Connection(conn_id="c", **given)) == expected


def test_a_connection_from_a_url_keeps_its_driver():
    connection = Connection.from_uri("postgresql+psycopg://u:p@127.0.0.1:5433/ledger", conn_id="c")
    assert database_url(connection) == "postgresql+psycopg://u:p@127.0.0.1:5433/ledger"


def test_a_connection_becomes_a_server_url():
    assert server_url(Connection.from_uri("http://127.0.0.1:5000", conn_id="c")) == (
        "http://127.0.0.1:5000"
    )


@pytest.mark.parametrize("outcome", ["promote", "reject"])
def test_the_branch_follows_the_verdict(outcome):
    assert task_id_of({"verdict": {"outcome": outcome}}) == outcome


def test_the_branch_fails_closed():
    with pytest.raises(ValueError, match="expected 'promote' or 'reject'"):
        task_id_of({"verdict": {"outcome": None}})


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (SchemaDrift("gone"), RetryAction.FAIL),
        (LedgerUnavailable("away"), RetryAction.RETRY),
        (RuntimeError("unknown"), RetryAction.DEFAULT),
    ],
)
def test_an_errors_type_says_whether_a_retry_helps(error, action):
    policy = RETRIES["retry_policy"]
    assert policy.evaluate(error, 1, 3, SimpleNamespace()).action == action


def test_each_source_of_a_shop_has_a_connection_of_its_own(monkeypatch, tmp_path):
    declared = yaml.safe_load((DECLARED / "tiny" / "shop.yaml").read_text())
    first = declared["sources"].pop("shop")
    names = ("orders", "catalogue", "stock")
    declared["sources"] = {name: first | {"connection": name} for name in names}
    for number, table in enumerate(declared["tables"].values()):
        table["source"] = names[number % 3]
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "shop.yaml").write_text(yaml.safe_dump(declared))
    environment = {
        "FRESHRANK_SHOPS": str(tmp_path),
        "FRESHRANK_LAKE": "lake",
        "FRESHRANK_LEDGER_URL": "sqlite://",
        "FRESHRANK_MLFLOW_URI": "http://127.0.0.1:5000",
        "FRESHRANK_CONNECTIONS__STOCK": "sqlite:///stock.db",
        "AIRFLOW_CONN_FRESHRANK_ORDERS": "postgresql://u:p@db:5432/orders",
        "AIRFLOW_CONN_FRESHRANK_CATALOGUE": "mysql://u:p@db:3306/pim",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = settings_for("tiny")
    assert {name: settings.connection(name) for name in names} == {
        "orders": "postgresql+psycopg://u:p@db:5432/orders",
        "catalogue": "mysql+pymysql://u:p@db:3306/pim",
        "stock": "sqlite:///stock.db",
    }
