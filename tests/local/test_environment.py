"""The services' environment: complete, sourceable, with nothing of the caller's own settings."""

import subprocess

import pytest

from local.home import PROJECT
from local.servers.environment import as_shell, inherited


def test_the_callers_own_airflow_does_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "SequentialExecutor")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "elsewhere")
    monkeypatch.setenv("FRESHRANK_LEDGER_URL", "elsewhere")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = inherited()
    assert environment["LANG"] == "C.UTF-8"
    assert environment["PYTHONPATH"] == str(PROJECT)
    assert not [key for key in environment if key.startswith(("AIRFLOW", "MLFLOW", "FRESHRANK"))]


@pytest.mark.parametrize("value", ["plain", "two words", "it's", "$HOME `id` \\", 'a"b', ""])
def test_a_shell_reads_the_values_back(value: str) -> None:
    script = as_shell({"PROBE": value}) + 'printf %s "$PROBE"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout == value
