"""The first task of a run, which waits for the run's turn and checks its interval."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseSensorOperator, DagRunState, PokeReturnValue
from airflow.sdk.exceptions import AirflowSkipException

from freshrank_airflow.runs import run_of
from pipelines.shared.intervals import require_past


class OpenInterval(BaseSensorOperator):
    """Wait until no earlier run is running, check the interval, list the shop's tables.

    Intervals are decided in order: an extraction reads all changes that are not extracted yet, so
    a run that overtook an earlier one would leave it nothing. A scheduled run whose interval the
    shop's clock has not reached yet is skipped; the bundled shop's clock stands still in 2017.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            mode="reschedule",
            poke_interval=arguments.pop("poke_interval", 10.0),
            timeout=arguments.pop("timeout", 24 * 3600.0),
            **arguments,
        )

    def poke(self, context: Any) -> PokeReturnValue:
        """Whether it is the run's turn."""
        from pipelines.extract import clock

        earlier = context["ti"].get_previous_dagrun(state=DagRunState.RUNNING)
        if earlier is not None:
            self.log.info("Waiting for the earlier run %s", earlier.run_id)
            return PokeReturnValue(is_done=False)
        run = run_of(context)
        now = clock(run)
        if run.interval.end > now and context["dag_run"].run_type == "scheduled":
            raise AirflowSkipException(
                f"the shop's clock stands at {now:%Y-%m-%d %H:%M} UTC, "
                f"before the end of {run.interval}"
            )
        require_past(run.interval, now)
        return PokeReturnValue(is_done=True, xcom_value=sorted(run.shop.tables))
