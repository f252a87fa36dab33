"""A graph with the first task of `ranker_update`, whose other tasks write down when they work.

**work** for so many seconds → **decide**. *Schedule*: none of its own; params as `ranker_update`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Param, dag, get_current_context, task
from freshrank_airflow import RETRIES, OpenInterval, current_turn, opening

opening.QUEUED_S = 20.0  # Five minutes are long for a test.


NOTES = Path(os.environ["FRESHRANK_HOME"], "notes")


def note(run: Any, what: str) -> None:
    """Write down what happens, and when."""
    line = {"week": f"{run.interval.start:%Y-%m-%d}", "what": what, "at": time.time()}
    with NOTES.open("a") as notes:
        notes.write(json.dumps(line) + "\n")


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * 1", timezone="UTC"),
    start_date=pendulum.datetime(2017, 1, 2, tz="UTC"),
    end_date=pendulum.datetime(2018, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=16,
    default_args=RETRIES,
    params={
        "start": Param(None, type=["null", "string"]),
        "end": Param(None, type=["null", "string"]),
        "shop": Param(None, type=["null", "string"]),
        "seconds": Param(3, type="integer"),
    },
)
def ordered() -> None:
    """One interval a run."""

    @task
    def work() -> None:
        from pipelines.shared.errors import PermanentError

        with current_turn() as run:
            note(run, "begins")
            seconds = get_current_context()["params"]["seconds"]
            if seconds < 0 and not NOTES.with_suffix(".mended").exists():
                raise PermanentError("as the test wants it")
            time.sleep(abs(seconds))
            note(run, "ends")

    @task
    def decide() -> None:
        from pipelines.shared.ledger import Decision

        with current_turn(last=True) as run:
            run.require_turn()
            with run.ledger.decision_lock() as connection:
                run.require_turn(connection)
                known = run.ledger.decisions(connection)
                if all(each.interval != run.interval for each in known):
                    reasons = ("a test says so",)
                    decision = Decision(run.interval, "reject", None, None, reasons, {})
                    run.ledger.decide(decision, connection)
                    note(run, "decided")

    OpenInterval(task_id="open_interval", poke_interval=2.0) >> work() >> decide()


ordered()
