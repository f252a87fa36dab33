"""Airflow's components as child processes, tuned for one small machine."""

import json
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from local import http
from local.errors import ServiceFailedError
from local.home import LOGIN, PROJECT, Home
from local.processes import LOOPBACK, Service, launch, wait_ready
from local.servers.commands import (
    AIRFLOW_COMPONENTS,
    COMMANDS,
    RANKER_POOL,
    RANKER_POOL_DESCRIPTION,
    RANKER_POOL_SLOTS,
)
from local.servers.environment import inherited, program
from local.servers.postgres import PostgresServer

READY_TIMEOUT_S = 180.0
PRELOADED = (
    "airflow.__main__",
    "airflow.dag_processing.dagbag",
    "airflow.executors.local_executor",
    "airflow.providers.standard.decorators.python",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "great_expectations",
    "mlflow.tracking",
    "matplotlib.pyplot",
    "lightgbm",
    "ibis.backends.duckdb",
    "deltalake",
    "pyarrow.dataset",
    "psycopg",
)


def settings(home: Home, server: PostgresServer, port: int, dags: Path) -> dict[str, str]:
    """Airflow's settings for this home."""
    keys = home.keys()
    url = f"http://{LOOPBACK}:{port}"
    database = server.url("airflow")
    return {
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database,
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__FERNET_KEY": keys.airflow_fernet_key,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # Every account of this machine can reach loopback.
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{LOGIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.login_file),
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": keys.airflow_api_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": keys.airflow_jwt_key,
        # By default Airflow opens its logs to the group, whatever the umask.
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        # Tasks are forked from a process that has the stages' libraries imported, once for all.
        "AIRFLOW__SCHEDULER__MP_START_METHOD": "forkserver",
        "AIRFLOW__SCHEDULER__MP_FORKSERVER_PRELOAD": ",".join(PRELOADED),
        # A task that ends is noticed at the next look; a look costs a few milliseconds.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "0",
    }


def migrate(home: Home, environment: Mapping[str, str]) -> None:
    """Bring the metadata database to this version's tables."""
    home.airflow.mkdir(parents=True, exist_ok=True)
    # Every setting comes from the environment; without the file each component would write one.
    (home.airflow / "airflow.cfg").touch()
    log = home.logs / "airflow-migrate.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        outcome = subprocess.run(
            program(COMMANDS["airflow-migrate"]),
            env={**inherited(), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if outcome.returncode != 0:
        raise ServiceFailedError(f"`airflow db migrate` failed; read {log}")


def start(home: Home, component: str, environment: Mapping[str, str], port: int) -> Service:
    """Start one component."""
    return launch(
        component,
        program(COMMANDS[component]),
        environment={**inherited(), **environment},
        log=home.logs / f"{component}.log",
        port=port if component == "airflow-api-server" else None,
    )


def wait(services: Mapping[str, Service]) -> None:
    """Return when the API server answers and every started component has reported to it."""
    api = services["airflow-api-server"]
    for component in AIRFLOW_COMPONENTS:
        if service := services.get(component):
            wait_ready(
                service,
                lambda component=component, since=service.started_s: (  # type: ignore[misc]
                    _heartbeats(api.url()).get(component, 0.0) >= since
                ),
                READY_TIMEOUT_S,
            )


def healthy(url: str) -> set[str]:
    """The components that the API server, itself included, reports as healthy."""
    return set(_heartbeats(url))


def _heartbeats(url: str) -> dict[str, float]:
    """When each healthy component reported last; one that was killed stays healthy for a while."""
    answer = http.get(f"{url}/api/v2/monitor/health")
    if answer is None:
        return {}
    states = json.loads(answer)
    parts = {
        f"airflow-{part.replace('_', '-')}": states.get(part) or {}
        for part in ("scheduler", "dag_processor", "triggerer")
    }
    beats = {
        component: datetime.fromisoformat(state[key]).timestamp()
        for component, state in parts.items()
        if state.get("status") == "healthy"
        for key in state
        if key.startswith("latest_")
    }
    if states["metadatabase"]["status"] == "healthy":
        beats["airflow-api-server"] = time.time()
    return beats


def token(url: str, password: str) -> str:
    """A token for the REST API, as the UI's login gives it.

    Raises:
        ServiceFailedError: Airflow does not answer, or takes another password.
    """
    status, answer = http.send(
        f"{url}/auth/token", "POST", {"username": LOGIN, "password": password}
    )
    if status >= 300:
        raise ServiceFailedError(
            f"Airflow at {url} gives no token (HTTP {status}); `make status` says whether it runs, "
            "and `make up` gives it this home's password"
        )
    return str(json.loads(answer)["access_token"])


def set_ranker_pool(url: str, password: str) -> None:
    """Create the one-slot pool over HTTP, which takes a tenth of a second and no process."""
    body = {
        "name": RANKER_POOL,
        "slots": RANKER_POOL_SLOTS,
        "description": RANKER_POOL_DESCRIPTION,
        "include_deferred": False,
    }
    status, _ = http.send(f"{url}/api/v2/pools", "POST", body, token(url, password))
    exists = 409
    if status >= 300 and status != exists:
        raise ServiceFailedError(f"Airflow at {url} refused the pool {RANKER_POOL}: HTTP {status}")
