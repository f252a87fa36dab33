"""The command line: one clear line for every mistake, and exit codes that say if a retry helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Ledger

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def cli(tmp_path):
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("FRESHRANK_")},
        "FRESHRANK_LAKE": str(tmp_path / "lake"),
        "FRESHRANK_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
        "FRESHRANK_MLFLOW_URI": "http://127.0.0.1:9",
        "FRESHRANK_CONNECTIONS__COMPLETEJOURNEY": "postgresql+psycopg://u:hidden@127.0.0.1:9/shop",
        "FRESHRANK_PSEUDONYM_KEY": "key",
    }

    def call(*arguments, **changed):
        return subprocess.run(
            [sys.executable, "-m", "pipelines", *arguments],
            cwd=PROJECT,
            env=environment | changed,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2017-01-09", "2017-01-02", "is not after its start"),
        ("2017-01-03", "2017-01-10", "is not aligned"),
        ("2030-01-07", "2030-01-14", "ends in the future"),
        ("someday", "2017-01-09", "'someday' is not a time"),
    ],
)
def test_a_wrong_interval_is_one_clear_error(cli, tmp_path, start, end, expected):
    outcome = cli("run", "--start", start, "--end", end)
    assert outcome.returncode == 1
    assert expected in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "lake").exists()


def test_an_unknown_shop_lists_the_known(cli):
    outcome = cli("status", "--shop", "nowhere")
    assert outcome.returncode == 1
    assert "unknown shop 'nowhere'" in outcome.stderr
    assert "completejourney" in outcome.stderr


def test_a_source_that_is_away_is_worth_a_retry_and_keeps_its_password(cli):
    outcome = cli("run", "--start", "2017-01-02", "--end", "2017-01-09")
    assert outcome.returncode == 75
    assert "hidden" not in outcome.stderr


def test_a_missing_setting_is_named(cli):
    outcome = cli("status", FRESHRANK_LEDGER_URL="")
    assert outcome.returncode != 0
    assert "Traceback" not in outcome.stderr


def test_status_of_nothing_says_what_to_do(cli):
    shown = cli("status").stdout
    assert "make demo" in shown
    assert "turn: nobody is at work" in shown
    report = json.loads(cli("status", "--json").stdout)
    assert report["shop"] == "completejourney"
    assert (report["champion"], report["intervals"], report["synced"]) == (None, [], [])
    (source,) = report["sources"]
    assert not source["answers"]
    assert "does not answer" in source["fault"]


def test_status_and_doctor_say_whose_turn_it_is_and_a_run_whom_it_waits_for(cli, tmp_path):
    week = Interval.of("2017-01-02", "2017-01-09")
    turns = Ledger(f"sqlite:///{tmp_path}/ledger.db", "completejourney", "basket").turns
    turns.take(week, "somebody")
    expected = f"somebody has the turn for {week} since "
    assert f"turn: {expected}" in cli("status").stdout
    turn = json.loads(cli("status", "--json").stdout)["turn"]
    assert (turn["holder"], turn["start"][:10], turn["alive"]) == ("somebody", "2017-01-02", True)
    assert expected in cli("doctor").stderr
    refused = cli("run", "--start", "2017-01-02", "--end", "2017-01-16", "--as-one")
    assert refused.returncode == 1
    assert f"overlaps {week}, of somebody, which runs" in refused.stderr


def test_doctor_names_every_fault_and_fails(cli):
    outcome = cli("doctor")
    assert outcome.returncode == 1
    for subject in ("python", "packages", "lake", "source", "ledger", "turn", "mlflow"):
        assert subject in outcome.stderr
    assert "make up" in outcome.stderr


def test_forgetting_wants_a_shopper_who_is_there_or_all_again(cli):
    for wrong in ((), ("--again", "--shopper", "7")):
        outcome = cli("forget", "--reason", "a request", *wrong)
        assert outcome.returncode == 2
        assert "give either --shopper or --again" in outcome.stderr
    outcome = cli("forget", "--shopper", "7", "--reason", "a request")
    assert outcome.returncode == 1
    assert "has no shopper with this id" in outcome.stderr
    outcome = cli("forget", "--shopper", "7", "--reason", "r", FRESHRANK_PSEUDONYM_KEY="")
    assert outcome.returncode == 1
    assert "FRESHRANK_PSEUDONYM_KEY is not set" in outcome.stderr


def test_help_names_every_command(cli):
    text = cli("--help").stdout
    for command in (
        "run",
        "publish",
        "status",
        "verify",
        "maintain",
        "forget",
        "rows",
        "doctor",
        "extract",
        "capture",
    ):
        assert command in text
