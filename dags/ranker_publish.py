"""Publish the champion's lists whenever the ranking has changed.

**serve** the features of every shopper at the end of the last decided interval, then **publish**:
score each shopper's candidates with the champion and replace the lists in the shop's database.

- *Schedule*: the asset `freshrank://ranking`, which every promotion and rejection updates.
- A run without a champion is skipped. A rerun writes the same lists.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException
from freshrank_airflow import RANKING, RETRIES, latest_run


@dag(
    schedule=[RANKING],
    start_date=pendulum.datetime(2017, 1, 2, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    tags=["freshrank"],
    doc_md=__doc__,
)
def ranker_publish() -> None:
    """One publication of the last decided interval."""

    @task
    def publish(*, triggering_asset_events: Any) -> dict[str, Any]:
        from pipelines import features, publish

        run = latest_run(event.extra for event in triggering_asset_events[RANKING])
        if run is None or run.ledger.champion() is None:
            raise AirflowSkipException(
                "nothing to publish: no interval was decided, or no champion"
            )
        features.serve(run)
        return publish.run(run).as_dict()

    publish()


ranker_publish()
