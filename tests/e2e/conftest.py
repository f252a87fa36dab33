"""A real installation: PostgreSQL, MLflow, Airflow, the bundled shop.

For one module at a time: an idle scheduler takes a good part of a core from the tests after it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from local import http, shop, stack
from local.servers.commands import CORE_COMPONENTS
from local.services import Stack
from pipelines.shared.settings import Settings

SHARE = 0.1
UNTIL = datetime(2017, 4, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The services, with a tenth of the bundled shop's households."""
    home = tmp_path_factory.mktemp("home")
    with stack(home, components=CORE_COMPONENTS) as started:
        quiet = Console(quiet=True)
        shop.load(started.postgres, share=SHARE, until=UNTIL, console=quiet)
        yield started


@pytest.fixture(scope="module")
def settings(running: Stack) -> Settings:
    """The settings that the installation's tasks have."""
    return running.settings


@pytest.fixture(scope="module")
def api(running: Stack) -> Callable[..., Any]:
    """Ask Airflow's REST API: `api(path)` reads, `api(path, body)` posts."""

    def ask(path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        token = running.token()
        url = f"{running.airflow_url}/api/v2/{path}"
        if body is not None:
            return http.send(url, method, body, token)[0]
        answer = http.get(url, token)
        return None if answer is None else json.loads(answer)

    return ask


@pytest.fixture(scope="module")
def wait_for_runs(api: Callable[..., Any]) -> Callable[..., list[dict[str, Any]]]:
    """Wait until so many runs of a kind have ended; returns them by interval."""

    def wait(dag: str, kind: str, count: int, timeout_s: float = 600) -> list[dict[str, Any]]:
        deadline = time.monotonic() + timeout_s
        runs: list[dict[str, Any]] = []
        while time.monotonic() < deadline:
            page = api(f"dags/{dag}/dagRuns?run_type={kind}&order_by=run_after&limit=50")
            runs = page["dag_runs"] if page else []
            ended = [run for run in runs if run["state"] in ("success", "failed")]
            if len(ended) >= count:
                return ended
            time.sleep(1)
        raise AssertionError(f"{dag}: {[(run['dag_run_id'], run['state']) for run in runs]}")

    return wait
