"""The MLflow tracking server and model registry, as a child process."""

import os
from collections.abc import Mapping
from pathlib import Path

from local import http
from local.home import PROJECT, Home
from local.processes import LOOPBACK, Service, launch, wait_ready
from local.servers.commands import COMMANDS
from local.servers.environment import QUIET, credentials, inherited, program
from local.servers.postgres import PostgresServer

READY_TIMEOUT_S = 120.0
APPLICATION = Path(__file__).parent / "mlflow_app"
"""Where MLflow finds the application that asks for a login."""


def settings(home: Home, server: PostgresServer, port: int) -> Mapping[str, str]:
    """The server's own settings; the database's password stays off the command line."""
    return {
        **QUIET,
        **credentials(home),
        "PYTHONPATH": f"{PROJECT}{os.pathsep}{APPLICATION}",
        "MLFLOW_HOST": LOOPBACK,
        "MLFLOW_PORT": str(port),
        "MLFLOW_WORKERS": "1",
        "MLFLOW_BACKEND_STORE_URI": server.url("mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": str(home.mlflow_artifacts),
        "MLFLOW_SERVE_ARTIFACTS": "true",
        # Jobs judge language models and start two more processes; nothing here uses them.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def start(home: Home, server: PostgresServer, port: int) -> Service:
    """Start the server, which creates its own tables."""
    home.mlflow_artifacts.mkdir(parents=True, exist_ok=True)
    return launch(
        "mlflow",
        program(COMMANDS["mlflow"]),
        environment={**inherited(), **settings(home, server, port)},
        log=home.logs / "mlflow.log",
        port=port,
    )


def wait(service: Service) -> None:
    """Return when the server answers."""
    wait_ready(service, lambda: http.get(f"{service.url()}/health") is not None, READY_TIMEOUT_S)
