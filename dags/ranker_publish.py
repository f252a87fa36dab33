"""Publish the champion's lists whenever the ranking has changed, of every shop whose ranking did.

**serve** the features of every shopper at the end of the last decided interval, then **publish**:
score each shopper's candidates with the champion and replace the lists in the shop's database. One
shop that fails holds up no other.

- *Schedule*: the asset `freshrank://ranking`, which every promotion and rejection updates.
- A shop without a champion is skipped. A rerun writes the same lists.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from freshrank_airflow import RANKING, RETRIES, latest_intervals, run_of_event


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
    """One publication of each shop's last decided interval."""

    @task
    def decided(*, triggering_asset_events: Any) -> list[Any]:
        return latest_intervals(event.extra for event in triggering_asset_events[RANKING])

    # In the model chain's slot: nothing erases rows of what is being served meanwhile.
    @task(pool="ranker", map_index_template="{{ shop }}")
    def publish(interval: Any) -> dict[str, Any]:
        from pipelines import features, publish

        get_current_context()["shop"] = interval["shop"]
        run = run_of_event(interval)
        if run.ledger.champion() is None:
            raise AirflowSkipException(f"{interval['shop']} has no champion to publish")
        features.serve(run)
        return publish.run(run).as_dict()

    publish.expand(interval=decided())


ranker_publish()
