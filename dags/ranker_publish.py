"""Writes the champion's lists into the shop's database whenever the ranking has changed."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException
from freshrank_airflow import RANKING, RETRIES, newest


@dag(
    schedule=[RANKING],
    start_date=pendulum.datetime(2017, 1, 2, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    tags=["freshrank"],
    doc_md="Scores every shopper's candidates with the champion and replaces the published lists.",
)
def ranker_publish() -> None:
    """One publication of the newest decided interval."""

    @task
    def publish(*, triggering_asset_events: Any) -> dict[str, Any]:
        from pipelines import features, publish

        run = newest(event.extra for event in triggering_asset_events[RANKING])
        if run is None or run.ledger.champion() is None:
            raise AirflowSkipException(
                "nothing to publish: no interval was decided, or no champion"
            )
        features.serve(run)
        return publish.run(run).as_dict()

    publish()


ranker_publish()
