"""The first task of a run, which checks its interval and waits for the run's turn."""

from __future__ import annotations

import time
from typing import Any, Final

from airflow.sdk import BaseSensorOperator, DagRunState, PokeReturnValue
from airflow.sdk.exceptions import AirflowSkipException

from freshrank_airflow.runs import run_of
from freshrank_airflow.turns import holder_of, take, vouch_for
from pipelines.shared.errors import TurnTaken
from pipelines.shared.intervals import require_past
from pipelines.shared.run import Run

SETTLE_S: Final = 3.0
"""Runs that are started together have all asked for the turn before one of them takes it."""
QUEUED_S: Final = 300.0
"""An older run that is queued is waited for so long after the last turn ended. One that waits for
a slot which the younger runs have (a backfill that runs backwards), or that a cancelled backfill
left behind, would never begin."""

STEPS_BACK: Final = 52
"""How far back Airflow is asked for them: a year of weeks."""


class OpenInterval(BaseSensorOperator):
    """Check the interval, take the run's turn when no older interval is to come first.

    Intervals are decided in order: an extraction reads all changes that are not extracted yet, so
    a run that overtook an earlier one would leave it nothing. The ledger knows who has the turn
    and who waits, whatever started them; Airflow knows what is queued. A scheduled run whose
    interval the shop's clock has not reached yet is skipped; the bundled shop's clock stands
    still in 2017.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            mode="reschedule",
            poke_interval=arguments.pop("poke_interval", 10.0),
            timeout=arguments.pop("timeout", 24 * 3600.0),
            **arguments,
        )

    def poke(self, context: Any) -> PokeReturnValue:
        """Whether the run has its turn.

        Raises:
            IntervalOverlaps: the interval overlaps one that is decided or running.
            IntervalError: it is wrong, or has not ended.
        """
        from pipelines.extract import clock

        run = run_of(context)
        now = clock(run)
        if run.interval.end > now and context["dag_run"].run_type == "scheduled":
            raise AirflowSkipException(
                f"the shop's clock stands at {now:%Y-%m-%d %H:%M} UTC, "
                f"before the end of {run.interval}"
            )
        require_past(run.interval, now)
        asked = run.ledger.turns.ask(run.interval, holder_of(context), vouch_for(context["ti"]))
        if asked.asked_s < SETTLE_S:
            time.sleep(SETTLE_S)
        # A run that was cleared may have its turn still.
        if asked.taken_at is None and (older := _older_to_come(run, asked.asked_s, context)):
            self.log.info("%d older runs are begun or queued and come first", older)
            return PokeReturnValue(is_done=False)
        try:
            take(run, context)
        except TurnTaken as taken:
            self.log.info("%s", taken)
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=sorted(run.shop.tables))


def _older_to_come(run: Run, asked_s: float, context: Any) -> int:
    """Runs of the intervals before this one that Airflow has begun or queued.

    Those that have begun are in the ledger's queue as soon as their first task has its slot.
    """
    if min(asked_s, run.ledger.turns.idle_s()) > QUEUED_S:
        return 0
    grid = run.shop.grid
    dates = [run.interval.start - number * grid.step for number in range(1, STEPS_BACK + 1)]
    states = [DagRunState.QUEUED, DagRunState.RUNNING]
    count: int = context["ti"].get_dr_count(context["dag_run"].dag_id, dates, states=states)
    return count
