"""Keep the lake small, prove that it is whole, and copy it.

**maintain**: delete what the shop's `retention` expires, merge small files, delete files that no
version of the last week needs → **verify**: read every partition and compare it with the ledger →
**back up**: copy what is new to `FRESHRANK_BACKUP`, where that is set.

- *Schedule*: every Wednesday at 03:00 UTC. It has no interval.
- A rerun finds nothing left to do.
"""

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
    doc_md=__doc__,
)
def ranker_maintain() -> None:
    """One round of maintenance, which has no interval."""

    # In the model chain's slot: no stage that writes without a lock runs meanwhile.
    @task(pool="ranker")
    def maintain() -> dict[str, Any]:
        from pipelines import maintain

        return maintain.run(current_installation()).as_dict()

    @task
    def verify() -> dict[str, Any]:
        from pipelines import maintain

        return maintain.verify(current_installation()).required().as_dict()

    # Only a lake that is whole is copied.
    @task(pool="ranker")
    def back_up() -> int:
        from pipelines import maintain

        return maintain.back_up(current_installation())

    maintain() >> verify() >> back_up()


ranker_maintain()
