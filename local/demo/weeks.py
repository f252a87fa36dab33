"""`make demo`: a real shop's weeks, through a real Airflow and a real MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from os import environ
from typing import Any

from rich.console import Console

from local import http, services, shop
from local.demo import progress
from local.demo.progress import Bar
from local.errors import LocalError
from local.home import Home
from local.processes import Register
from local.servers import postgres
from local.servers.commands import CORE_COMPONENTS
from local.servers.environment import SHOP
from local.services import Stack
from pipelines.shared.intervals import Interval

DAG = "ranker_update"
FIRST = datetime(2017, 1, 2, tzinfo=UTC)
WEEK = timedelta(days=7)
WARM_UP_WEEKS = 8
YEAR_END = datetime(2018, 1, 1, tzinfo=UTC)
MARKER = "made-by-demo"
ENDED = ("success", "failed")
PATIENCE_S = 90.0
POLL_S = 1.5


def main(share: float, weeks: int) -> None:
    """Run the demo from a clean home and show its results.

    Raises:
        LocalError: the home holds something else, or an Airflow run failed.
    """
    from local.demo import curves

    console = Console(highlight=False)
    started = time.monotonic()
    home = Home.from_environment(environ)
    _start_clean(home, console)
    stack = _start(home, share, console)
    console.print(
        f"Airflow {stack.airflow_url} · MLflow {stack.mlflow_url} · login {stack.login}",
        soft_wrap=True,
    )
    first = Interval(FIRST, FIRST + WARM_UP_WEEKS * WEEK)
    later = Interval(first.end, first.end + weeks * WEEK)
    with progress.bar(console) as bar:
        _first_model(stack, first, bar)
        _backfill(stack, later, bar)
        settings = stack.settings
        references = curves.references(settings, SHOP, first, later, bar)
    curves.show(console, settings, SHOP, references, share)
    plot = curves.plot(references, home.path / "demo.png")
    console.print(f"\nPlot: {plot}", soft_wrap=True)
    console.print(
        f"Took {time.monotonic() - started:.0f} s. Everything still runs: "
        f"Airflow {stack.airflow_url} · MLflow {stack.mlflow_url}\n"
        "`make down` stops it, `make up` brings it back with this history, "
        "`make status` prints the table again.",
        soft_wrap=True,
    )


def _start_clean(home: Home, console: Console) -> None:
    if home.path.exists():
        ours = (home.path / MARKER).exists() or not Register(home.services_file).read()
        if not ours:
            raise LocalError(
                f"{home.path} holds an installation that the demo did not create; the demo would "
                "delete it. Set FRESHRANK_HOME to another folder, or `make clean` it first"
            )
        console.print("Removing the last demo")
        services.shut_down(home)
        home.delete()
    home.create()
    (home.path / MARKER).touch()


def _start(home: Home, share: float, console: Console) -> Stack:
    """Start the services and load the shop's year meanwhile."""
    console.print(
        f"Starting PostgreSQL, MLflow and Airflow; loading {share:.0%} of the bundled shop's "
        "households (SHARE=1 takes all)"
    )
    server = services.start_database(home, postgres.THROWAWAY)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(
            shop.load, server, share=share, until=YEAR_END, console=Console(quiet=True)
        )
        stack = services.start(home, durability=postgres.THROWAWAY, components=CORE_COMPONENTS)
        loading.result()
    return stack


def _first_model(stack: Stack, interval: Interval, bar: Bar) -> None:
    """Trigger one run over the warm-up, as a person does from the form."""
    update = bar.track(f"First model, {WARM_UP_WEEKS} weeks in one run", 1)
    token = stack.token()
    # Airflow reads the graphs in the background after it is up.
    _json(f"{stack.airflow_url}/api/v2/dags/{DAG}", token)
    body = {
        "logical_date": None,
        "conf": {"start": f"{interval.start:%F}", "end": f"{interval.end:%F}"},
    }
    status, _ = http.send(f"{stack.airflow_url}/api/v2/dags/{DAG}/dagRuns", "POST", body, token)
    if status >= 300:
        raise LocalError(f"Airflow refused to trigger {DAG}: HTTP {status}")
    _follow(stack, token, "manual", 1, update)


def _backfill(stack: Stack, interval: Interval, bar: Bar) -> None:
    """Replay the weeks with `airflow backfill create`."""
    weeks = round((interval.end - interval.start) / WEEK)
    update = bar.track(f"Backfill, {weeks} weeks, a run each", weeks)
    stack.run(
        *("airflow", "backfill", "create", "--dag-id", DAG),
        *("--from-date", f"{interval.start:%F}", "--to-date", f"{interval.end - WEEK:%F}"),
        # Any number would decide in order; runs that only wait their turn cost a small machine.
        *("--max-active-runs", "1"),
    )
    _follow(stack, stack.token(), "backfill", weeks, update)


def _follow(
    stack: Stack, token: str, kind: str, total: int, update: Callable[[int, str], None]
) -> None:
    """Wait until every run of a kind has ended, and show meanwhile what is running.

    Raises:
        LocalError: a run failed; names its failed tasks and where their logs are.
    """
    base = f"{stack.airflow_url}/api/v2/dags/{DAG}/dagRuns"
    while True:
        runs = _json(f"{base}?run_type={kind}&order_by=logical_date&limit=100", token)["dag_runs"]
        ended = [run for run in runs if run["state"] in ENDED]
        if failed := [run for run in ended if run["state"] == "failed"]:
            raise LocalError(_failure(stack, token, failed[0]["dag_run_id"]))
        active = next((run for run in runs if run["state"] == "running"), None)
        update(len(ended), _now(base, token, active) if active else "")
        if len(ended) >= total:
            return
        time.sleep(POLL_S)


def _now(base: str, token: str, run: dict[str, Any]) -> str:
    tasks = _json(f"{base}/{run['dag_run_id']}/taskInstances?limit=100", token)["task_instances"]
    names = {task["task_id"].split(".")[-1] for task in tasks if task["state"] == "running"}
    week = (run.get("data_interval_start") or "")[:10]
    return f"{week} {', '.join(sorted(names))}".strip()


def _failure(stack: Stack, token: str, run: str) -> str:
    base = f"{stack.airflow_url}/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances?limit=100"
    tasks = [task for task in _json(base, token)["task_instances"] if task["state"] == "failed"]
    names = ", ".join(task["task_id"] for task in tasks)
    folder = stack.home.airflow / "logs" / f"dag_id={DAG}" / f"run_id={run}"
    return f"run {run} failed at {names}; its log is in {folder}"


def _json(url: str, token: str) -> dict[str, Any]:
    """A page of the API; a server that is busy for a while is asked again."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := http.get(url, token)) is None:
        if time.monotonic() > deadline:
            raise LocalError(f"Airflow does not answer at {url.split('/api')[0]}; `make status`")
        time.sleep(0.5)
    page: dict[str, Any] = json.loads(answer)
    return page
