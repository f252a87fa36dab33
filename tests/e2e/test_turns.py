"""`OpenInterval` in a real scheduler: the order of runs, whatever started them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local import stack
from local.servers.commands import CORE_COMPONENTS
from local.services import Stack
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.ledger import Ledger
from pipelines.shared.ledger.tables import TURNS
from pipelines.shared.run import Installation

pytestmark = [pytest.mark.services, pytest.mark.airflow, pytest.mark.timeout(900)]

DAG = "ordered"
FIRST = utc("2017-01-02")


def day(number: int) -> str:
    return f"{FIRST + timedelta(weeks=number):%Y-%m-%d}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The services with this test's graph; the shop has a clock and no tables."""
    with stack(
        tmp_path_factory.mktemp("home"),
        dags=Path(__file__).parent / "graphs",
        components=CORE_COMPONENTS,
    ) as started:
        yield started


@pytest.fixture(scope="module")
def notes(running: Stack) -> Path:
    """Where the graph's tasks write down what happens."""
    return Path(running.environment["FRESHRANK_HOME"], "notes")


@pytest.fixture(scope="module")
def ledger(running: Stack) -> Ledger:
    return Installation.open(running.settings, "completejourney").ledger


Trigger = Callable[..., str]


@pytest.fixture(scope="module")
def trigger(api: Callable[..., Any]) -> Trigger:
    """Trigger a run of some weeks, with a logical date if that is wanted; its id."""
    numbers = itertools.count()
    while api(f"dags/{DAG}") is None:
        time.sleep(0.2)

    def one(start: int, weeks: int = 1, *, dated: bool = False, seconds: int = 3) -> str:
        name = f"run-{next(numbers)}"
        conf = {"start": day(start), "end": day(start + weeks), "seconds": seconds}
        dates = f"{day(start)}T00:00:00Z" if dated else None
        body = {"dag_run_id": name, "logical_date": dates, "conf": conf}
        assert api(f"dags/{DAG}/dagRuns", body) == 200
        return name

    return one


@pytest.fixture(scope="module")
def end(api: Callable[..., Any]) -> Callable[..., list[str]]:
    """Wait until runs have ended; their states."""

    def wait(*names: str, timeout_s: float = 150) -> list[str]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            states = [api(f"dags/{DAG}/dagRuns/{name}")["state"] for name in names]
            if {"queued", "running"}.isdisjoint(states):
                return states
            time.sleep(0.5)
        raise AssertionError(f"{names} are {states}")

    return wait


def noted(notes: Path, what: str, *weeks: int) -> list[str]:
    """The weeks of which something was noted, in its order."""
    wanted = {day(week) for week in weeks}
    written = notes.read_text() if notes.exists() else ""
    lines = [json.loads(line) for line in written.splitlines()]
    return [
        each["week"]
        for each in sorted(lines, key=lambda each: each["at"])
        if each["what"] == what and each["week"] in wanted
    ]


def test_runs_with_and_without_a_logical_date_wait_for_one_another(
    trigger: Trigger, end: Callable[..., list[str]], notes: Path
) -> None:
    first = trigger(0, seconds=8)
    later = [trigger(3), trigger(2, dated=True), trigger(1)]
    assert end(first, *later) == ["success"] * 4
    assert noted(notes, "decided", 0, 1, 2, 3) == [day(week) for week in range(4)]
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    work = [each for each in lines if each["what"] in ("begins", "ends")]
    assert [each["what"] for each in work] == ["begins", "ends"] * 4


def test_a_later_run_waits_for_older_ones_that_are_queued(
    running: Stack, trigger: Trigger, end: Callable[..., list[str]], api: Callable[..., Any],
    notes: Path,
) -> None:  # fmt: skip
    running.run(
        "airflow",
        *("backfill", "create", "--dag-id", DAG, "--max-active-runs", "1"),
        *("--from-date", day(5), "--to-date", day(7)),
    )
    later = trigger(8)
    assert end(later) == ["success"]
    assert noted(notes, "decided", 5, 6, 7, 8) == [day(week) for week in range(5, 9)]


def test_a_backfill_that_runs_backwards_comes_to_its_end(
    running: Stack, wait_for_runs: Callable[..., Any], notes: Path
) -> None:
    """The older runs stay queued until the younger have ended: they are not waited for for ever."""
    running.run(
        "airflow",
        *("backfill", "create", "--dag-id", DAG, "--max-active-runs", "1", "--run-backwards"),
        *("--from-date", day(10), "--to-date", day(11)),
    )
    runs = wait_for_runs(DAG, "backfill", 5, timeout_s=200)
    assert {run["state"] for run in runs} == {"success"}
    assert noted(notes, "decided", 10, 11) == [day(11), day(10)]


def test_an_interval_that_overlaps_a_decided_one_fails_at_its_first_task(
    trigger: Trigger, end: Callable[..., list[str]], api: Callable[..., Any], notes: Path
) -> None:
    decided = trigger(14)
    assert end(decided) == ["success"]
    overlapping = trigger(13, weeks=2)
    assert end(overlapping) == ["failed"]
    tried = api(f"dags/{DAG}/dagRuns/{overlapping}/taskInstances/open_interval")
    assert (tried["state"], tried["try_number"]) == ("failed", 1)
    log = api(f"dags/{DAG}/dagRuns/{overlapping}/taskInstances/open_interval/logs/1")
    assert "IntervalOverlaps" in json.dumps(log)
    assert noted(notes, "begins", 13) == []


def test_a_failed_run_gives_its_turn_up_at_once_and_takes_it_again_when_it_is_cleared(
    trigger: Trigger, end: Callable[..., list[str]], api: Callable[..., Any], ledger: Ledger,
    notes: Path,
) -> None:  # fmt: skip
    failing = trigger(16, seconds=-1)
    assert end(failing) == ["failed"]
    standing = ledger.turns.standing()
    assert standing is not None
    assert standing.holder == f"Airflow run {DAG}/{failing}"
    began = time.monotonic()
    assert end(trigger(17)) == ["success"]
    assert time.monotonic() - began < 60
    Path(f"{notes}.mended").touch()
    assert api(f"dags/{DAG}/dagRuns/{failing}/clear", {"dry_run": False}) == 200
    assert end(failing) == ["success"]
    assert noted(notes, "decided", 16, 17) == [day(17), day(16)]
    assert ledger.turns.standing() is None


def test_a_run_waits_for_a_command_by_hand(
    trigger: Trigger, end: Callable[..., list[str]], ledger: Ledger, notes: Path
) -> None:
    week = Interval.of(day(20), day(21))
    ledger.turns.take(week, "somebody at a terminal")
    waiting = trigger(20)
    time.sleep(12)
    assert noted(notes, "begins", 20) == []
    ledger.turns.release("somebody at a terminal")
    assert end(waiting) == ["success"]
    assert noted(notes, "decided", 20) == [day(20)]


def test_two_runs_of_one_interval_decide_it_once(
    trigger: Trigger, end: Callable[..., list[str]], notes: Path
) -> None:
    assert end(trigger(22), trigger(22, dated=True)) == ["success", "success"]
    assert noted(notes, "decided", 22) == [day(22)]
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    work = [each["what"] for each in lines if each["week"] == day(22)]
    assert work == ["begins", "ends", "decided", "begins", "ends"]


def silence(ledger: Ledger) -> None:
    """As if the last sign of life of who has the turn were an hour old."""
    with ledger.transaction() as connection:
        aged = TURNS.update().where(TURNS.c.taken_at.is_not(None), TURNS.c.ended_at.is_(None))
        connection.execute(aged.values(heartbeat_at="2017-01-02T00:00:00.000+00:00"))


def test_airflow_vouches_for_a_run_that_gives_no_sign_of_life(
    trigger: Trigger, end: Callable[..., list[str]], ledger: Ledger, notes: Path
) -> None:
    working = trigger(24, seconds=20)
    while noted(notes, "begins", 24) == []:
        time.sleep(0.2)
    later = trigger(25)
    while noted(notes, "decided", 24) == []:
        silence(ledger)
        time.sleep(1)
    assert end(working, later) == ["success", "success"]
    assert noted(notes, "decided", 24, 25) == [day(24), day(25)]


def test_a_run_that_airflow_does_not_know_is_taken_over_by_its_heartbeat(
    trigger: Trigger, end: Callable[..., list[str]], ledger: Ledger, notes: Path
) -> None:
    ledger.turns.take(Interval.of(day(26), day(27)), f"Airflow run {DAG}/deleted")
    waiting = trigger(27)
    time.sleep(12)
    assert noted(notes, "begins", 27) == []
    silence(ledger)
    assert end(waiting) == ["success"]
