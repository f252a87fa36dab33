"""The Airflow side of Freshrank: settings, intervals, turns, the branch and the retries."""

from freshrank_airflow.branch import PromoteOrReject
from freshrank_airflow.opening import OpenInterval
from freshrank_airflow.retries import RETRIES
from freshrank_airflow.runs import (
    RANKING,
    current_installation,
    event_extra,
    latest_intervals,
    run_of_event,
    who_triggered,
)
from freshrank_airflow.turns import current_turn

__all__ = [
    "RANKING",
    "RETRIES",
    "OpenInterval",
    "PromoteOrReject",
    "current_installation",
    "current_turn",
    "event_extra",
    "latest_intervals",
    "run_of_event",
    "who_triggered",
]
