"""The turn of an Airflow run: taken by its first task, affirmed by each, released by its last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from airflow.sdk import DagRunState, get_current_context
from airflow.sdk.exceptions import AirflowRuntimeError

from freshrank_airflow.runs import run_of
from pipelines.shared.ledger import Turn
from pipelines.shared.ledger.turns import Vouch
from pipelines.shared.run import Run
from pipelines.shared.turn import beating

_PREFIX: Final = "Airflow run "
_AT_WORK: Final = (DagRunState.QUEUED, DagRunState.RUNNING)


@contextmanager
def current_turn(*, last: bool = False) -> Iterator[Run]:
    """The `Run` of the calling task, in its turn: signs of life are given while the block runs.

    A task that was cleared when its run had ended takes the turn again.

    Args:
        last: release the turn when the block ends well.

    Raises:
        TurnTaken: another run is at work; a retry may find that it is done.
        IntervalOverlaps: the interval overlaps one that is decided or running.
        FreshrankError: settings, shop or interval are wrong; the message says which.
    """
    context = get_current_context()
    run = run_of(context)
    with beating(run, take(run, context)) as ready:
        yield ready
    if last:
        run.ledger.turns.release(holder_of(context))


def take(run: Run, context: Mapping[str, Any]) -> Turn:
    """Take the turn of an Airflow run, or affirm it. Errors: see `Turns.take`."""
    return run.ledger.turns.take(run.interval, holder_of(context), vouch_for(context["ti"]))


def holder_of(context: Mapping[str, Any]) -> str:
    """The name under which an Airflow run has its turn; all of its tasks and retries share it."""
    dag_run = context["dag_run"]
    return f"{_PREFIX}{dag_run.dag_id}/{dag_run.run_id}"


def vouch_for(task_instance: Any) -> Vouch:
    """Says of an Airflow run whether it is at work, by Airflow; of other holders nothing.

    So a turn outlasts a full pool, and the turn of a run that failed is free at once.
    """

    @cache
    def vouch(holder: str) -> bool | None:
        graph, found, run_id = holder.removeprefix(_PREFIX).partition("/")
        if not holder.startswith(_PREFIX) or not found:
            return None
        try:
            return task_instance.get_dagrun_state(graph, run_id) in _AT_WORK
        except AirflowRuntimeError:
            return None  # Deleted, or Airflow is busy: its heartbeat tells.

    return vouch
