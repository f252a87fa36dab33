"""The command line itself, with nothing running."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from local.__main__ import application
from local.servers.commands import AIRFLOW_COMPONENTS, COMMANDS, CORE_COMPONENTS

runner = CliRunner()


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESHRANK_HOME", str(tmp_path / "home"))


def test_status_says_that_nothing_runs_and_how_to_start() -> None:
    outcome = runner.invoke(application, ["status"])
    assert outcome.exit_code == 1
    assert "stopped" in outcome.output
    assert "make up" in outcome.output


def test_down_twice_is_no_error() -> None:
    for _ in range(2):
        outcome = runner.invoke(application, ["down"])
        assert outcome.exit_code == 0
        assert "Nothing was running" in outcome.output


def test_env_before_up_names_the_way_out(tmp_path: Path) -> None:
    outcome = runner.invoke(application, ["env"])
    assert outcome.exit_code == 1
    assert "make up" in outcome.output


@pytest.mark.parametrize("options", [["--share", "0"], ["--share", "1.5"], ["--weeks", "0"]])
def test_a_demo_out_of_range_is_refused(options: list[str]) -> None:
    assert runner.invoke(application, ["demo", *options]).exit_code == 2


def test_no_command_carries_an_address_or_a_secret() -> None:
    for command in COMMANDS.values():
        assert not [part for part in command if "://" in part or "=" in part]


def test_every_component_has_a_command() -> None:
    assert set(CORE_COMPONENTS) < set(AIRFLOW_COMPONENTS) < set(COMMANDS)
