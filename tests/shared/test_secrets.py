"""A planted password shows nowhere, whatever is wrong with the address that holds it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from local.processes import free_port
from pipelines.cli.app import app
from pipelines.evaluate.tracking.mlflow_tracker import MlflowTracker
from pipelines.evaluate.tracking.studies import record_study
from pipelines.promote.registry import MlflowRegistry
from pipelines.shared.errors import SettingsError, TrackingUnavailable
from pipelines.shared.mlflow_server import require_reachable, translate_errors
from pipelines.shared.settings import explain, load_settings, without_secrets

WORD, HALF = "geheim", "halbes"
"""Both halves of the planted passwords: neither may show."""
HTTP = (
    "http://user:{word}{half}@127.0.0.1:{port}",
    "http://user:{word}%20{half}@127.0.0.1:{port}",
    "http://{word}{half}@127.0.0.1:{port}",
)
MALFORMED = (
    "http://user:{word} {half}@127.0.0.1:{port}",
    "http://user:{word}@{half}@127.0.0.1:{port}",
    "http://user:{word}/{half}@127.0.0.1:{port}",
    "http://user:{word}#{half}@127.0.0.1:{port}",
    "http://user:1?{word}{half}@127.0.0.1:{port}",
    "postgresql://user:{word}@{half}@127.0.0.1:{port}/x",
    "postgresql+psycopg://user:{word}@127.0.0.1:{half}/x",
)
SQL = (
    "postgresql+psycopg://user:{word}{half}@127.0.0.1:{port}/x",
    "mysql+pymysql://user:{word}%40{half}@127.0.0.1:{port}/x",
)
COMMANDS = (
    "status", "doctor", "run {span}", "extract {span}", "publish --end 2017-01-09", "verify",
    "rows users --at 2017-01-09", "maintain", "backup", "tune {span}", "capture install",
    "capture remove", "features list", "features show --help", "settings",
)  # fmt: skip


def planted(address: str) -> str:
    return address.format(word=WORD, half=HALF, port=free_port())


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def assert_hidden(text: str) -> None:
    assert WORD not in text
    assert HALF not in text


@pytest.mark.parametrize("address", [*HTTP, *MALFORMED, *SQL])
def test_an_address_is_shown_without_its_secrets(address: str) -> None:
    address = planted(address)
    if not address.endswith(f"{HALF}/x"):
        assert "127.0.0.1" in without_secrets(address)
        assert_hidden(without_secrets(address))
    assert_hidden(explain(OSError(f"no host {WORD} {HALF} in {address}"), planted(MALFORMED[0])))


@pytest.mark.parametrize("address", ["sqlite:////home/mlflow.db", "http://host:5000", "mlruns"])
def test_an_address_without_secrets_stays(address: str) -> None:
    assert without_secrets(address) == address
    assert explain(OSError("no host"), address) == "OSError: no host"


@pytest.mark.parametrize("address", MALFORMED)
@pytest.mark.parametrize("name", ["MLFLOW_URI", "LEDGER_URL", "CONNECTIONS__SHOP"])
def test_a_malformed_address_is_refused_without_showing_it(
    name: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "MLFLOW_URI" and address.startswith("http"):
        pytest.skip("no address of a database")
    monkeypatch.setenv("FRESHRANK_LAKE", "lake")
    monkeypatch.setenv("FRESHRANK_LEDGER_URL", "sqlite://")
    monkeypatch.setenv("FRESHRANK_MLFLOW_URI", "")
    monkeypatch.setenv(f"FRESHRANK_{name}", planted(address))
    with pytest.raises(SettingsError, match=rf"FRESHRANK_{name.split('__')[0]}.*percent-enc") as no:
        load_settings()
    assert_hidden(shown(no.value))


ASKED: dict[str, Callable[[str], Any]] = {
    "probe": require_reachable,
    "tracker": lambda uri: MlflowTracker(uri).check(),
    "registry": lambda uri: MlflowRegistry(uri, "tiny", "basket").follow(1),
    "study": lambda uri: record_study(uri, "tiny/basket", "s", []),
}


@pytest.mark.parametrize("address", [*HTTP, *MALFORMED[:5]])
@pytest.mark.parametrize("asked", ASKED)
def test_a_tracking_server_that_is_away_shows_no_secret(
    asked: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(TrackingUnavailable, match="does not answer") as away:
        ASKED[asked](planted(address))
    assert_hidden(shown(away.value))
    assert_hidden(caplog.text)


@pytest.mark.parametrize("address", HTTP)
def test_what_mlflow_itself_says_shows_no_secret(address: str) -> None:
    """A server that goes away after the probe: MLflow names the whole address."""
    from mlflow import MlflowClient

    uri = planted(address)
    with pytest.raises(TrackingUnavailable) as away, translate_errors(uri):
        MlflowClient(uri, uri).search_experiments()
    assert_hidden(shown(away.value))


@pytest.mark.parametrize("address", [*SQL, *HTTP[:1]])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_shows_a_secret(
    command: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Of the address of MLflow, or of those of the ledger and the shop's database."""
    caplog.set_level(logging.DEBUG)
    shops = Path(__file__).parents[1] / "declared"
    http = address.startswith("http")
    ledger = f"sqlite:///{tmp_path}/ledger.db" if http else planted(address)
    values = {
        "LAKE": str(tmp_path / "lake"), "LEDGER_URL": ledger, "SHOPS": str(shops), "SHOP": "tiny",
        "MLFLOW_URI": planted(HTTP[0]), "CONNECTIONS__SHOP": planted(SQL[0]),
        "CONNECTIONS__TINY": planted(SQL[0]), "PSEUDONYM_KEY": f"{WORD}{HALF}",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"FRESHRANK_{name}", value)
    span = "--start 2017-01-02 --end 2017-01-09"
    outcome = CliRunner().invoke(app, command.format(span=span).split())
    assert_hidden(outcome.output + outcome.stderr + caplog.text)
    if outcome.exception is not None:
        assert_hidden(shown(outcome.exception))
