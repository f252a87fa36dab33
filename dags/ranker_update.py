"""Learn what changed in one interval, and promote the challenger or turn it away.

**extract** what changed → **validate**, quarantine unsound rows → **features** from state + delta →
**train** a challenger on what the champion has not seen → **evaluate** both → **promote** or
**reject**, with reasons. A rerun of any task is the same run.

- *Schedule*: every week. *Trigger*: give `start` and `end` (Mondays), or neither.
- *Backfill*: `airflow backfill create --dag-id ranker_update --from-date … --to-date …`
- The last line of a red task's log says what to do; then clear the task.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Param, dag, task, task_group
from freshrank_airflow import (
    RANKING,
    RETRIES,
    OpenInterval,
    PromoteOrReject,
    current_turn,
    event_extra,
)


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * 1", timezone="UTC"),
    start_date=pendulum.datetime(2017, 1, 2, tz="UTC"),
    catchup=False,
    max_active_runs=16,
    default_args=RETRIES,
    params={
        "start": Param(None, type=["null", "string"], format="date", title="Interval start"),
        "end": Param(None, type=["null", "string"], format="date", title="Interval end"),
        "shop": Param(None, type=["null", "string"], title="Shop (empty: the installation's)"),
    },
    tags=["freshrank"],
    doc_md=__doc__,
)
def ranker_update() -> None:
    """One interval a run."""

    @task
    def extract(table: str) -> dict[str, Any]:
        from pipelines import extract

        with current_turn() as run:
            return extract.run(run, table).as_dict()

    @task
    def validate(extracted: dict[str, Any]) -> dict[str, Any]:
        from pipelines import validate

        with current_turn() as run:
            return validate.run(run, extracted["table"]).as_dict()

    @task_group
    def ingest(table: str) -> None:
        validate(extract(table))

    @task(pool="ranker")
    def features() -> dict[str, Any]:
        from pipelines import features

        with current_turn() as run:
            return features.run(run).as_dict()

    @task(pool="ranker")
    def train() -> dict[str, Any]:
        from pipelines import train

        with current_turn() as run:
            return train.run(run).as_dict()

    @task(pool="ranker")
    def evaluate() -> dict[str, Any]:
        from pipelines import evaluate

        with current_turn() as run:
            return evaluate.run(run).as_dict()

    @task(pool="ranker", outlets=[RANKING])
    def promote(*, outlet_events: Any) -> dict[str, Any]:
        from pipelines import promote

        with current_turn(last=True) as run:
            outlet_events[RANKING].extra = event_extra(run)
            return promote.promote(run).as_dict()

    @task(pool="ranker", outlets=[RANKING])
    def reject(*, outlet_events: Any) -> dict[str, Any]:
        from pipelines import promote

        with current_turn(last=True) as run:
            outlet_events[RANKING].extra = event_extra(run)
            return promote.reject(run).as_dict()

    tables = OpenInterval(task_id="open_interval")
    evaluation = evaluate()
    decide = PromoteOrReject(task_id="decide", evaluation=evaluation, pool="ranker")

    tables >> ingest.expand(table=tables.output) >> features() >> train() >> evaluation
    evaluation >> decide >> [promote(), reject()]


ranker_update()
