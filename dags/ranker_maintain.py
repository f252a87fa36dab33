"""Keeps the lake small and proves that it is whole."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import CronTriggerTimetable, Param, dag, task
from freshrank_airflow import RETRIES, current_installation


@dag(
    schedule=CronTriggerTimetable("0 3 * * 3", timezone="UTC"),
    start_date=pendulum.datetime(2017, 1, 4, 3, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    params={"shop": Param(None, type=["null", "string"], title="Shop (empty: the installation's)")},
    tags=["freshrank"],
    doc_md="Removes what the shop's `retention` lets go, merges small files, deletes files that no "
    "version of the last week needs; then reads every partition and compares it with the "
    "ledger; then copies what is new to `FRESHRANK_BACKUP`, where that is set.",
)
def ranker_maintain() -> None:
    """One round of maintenance; about no interval, so none is asked for."""

    # In the model chain's slot: no stage that writes without a lock runs meanwhile.
    @task(pool="ranker")
    def maintain() -> dict[str, Any]:
        from pipelines import maintain

        return maintain.run(current_installation()).as_dict()

    @task
    def verify() -> dict[str, Any]:
        from pipelines import maintain

        return maintain.verify(current_installation()).required().as_dict()

    # Only a lake that was found whole is copied.
    @task(pool="ranker")
    def back_up() -> int:
        from pipelines import maintain

        return maintain.back_up(current_installation())

    maintain() >> verify() >> back_up()


ranker_maintain()
