"""The environment variables of the services, the tasks and a person's shell."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from local.home import LOGIN, PROJECT, Home
from local.servers.postgres import PostgresServer

SHOP = "completejourney"

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "DO_NOT_TRACK": "1",
}
"""Nothing here reports home."""
SHARED_CORES = {"OMP_WAIT_POLICY": "passive"}
"""Threads that wait for others sleep: on two busy cores, spinning tripled a training's time."""


def freshrank(home: Home, server: PostgresServer, mlflow_url: str) -> dict[str, str]:
    """The settings of `pipelines`, and the same as Airflow connections."""
    shop = server.url("shop")
    ledger = server.url("ledger")
    return {
        "FRESHRANK_HOME": str(home.path),
        "FRESHRANK_LAKE": str(home.lake),
        "FRESHRANK_LEDGER_URL": ledger,
        "FRESHRANK_MLFLOW_URI": mlflow_url,
        "FRESHRANK_SHOP": SHOP,
        f"FRESHRANK_CONNECTIONS__{SHOP.upper()}": shop,
        "FRESHRANK_PSEUDONYM_KEY": home.keys().pseudonym_key,
        "AIRFLOW_CONN_FRESHRANK_LEDGER": ledger,
        "AIRFLOW_CONN_FRESHRANK_MLFLOW": mlflow_url,
        f"AIRFLOW_CONN_FRESHRANK_{SHOP.upper()}": shop,
        "MLFLOW_TRACKING_URI": mlflow_url,
        **credentials(home),
        **QUIET,
        **SHARED_CORES,
    }


def credentials(home: Home) -> dict[str, str]:
    """The login at MLflow, under the names that its clients read."""
    return {
        "MLFLOW_TRACKING_USERNAME": LOGIN,
        "MLFLOW_TRACKING_PASSWORD": home.keys().login_password,
    }


def inherited() -> dict[str, str]:
    """This process's environment without the settings that would reach into the services."""
    foreign = ("AIRFLOW__", "AIRFLOW_", "MLFLOW_", "FRESHRANK_", "PYTEST_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    programs = str(Path(sys.executable).parent)
    path = kept.get("PATH", os.defpath)
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{path}",
        "PYTHONPATH": str(PROJECT),
        "PYTHONUNBUFFERED": "1",
    }


def program(command: tuple[str, ...]) -> list[str]:
    """A command with its program taken from this virtual environment."""
    return [str(Path(sys.executable).parent / command[0]), *command[1:]]


def as_shell(environment: Mapping[str, str]) -> str:
    """The variables as a file to source."""
    lines = [f"export {key}={shlex.quote(value)}" for key, value in sorted(environment.items())]
    return "\n".join(lines) + "\n"
