"""The Airflow side of Freshrank: settings, intervals, turns, the branch and the retries."""

from freshrank_airflow.branch import PromoteOrReject
from freshrank_airflow.opening import OpenInterval
from freshrank_airflow.retries import RETRIES
from freshrank_airflow.runs import (
    RANKING,
    current_installation,
    current_run,
    event_extra,
    latest_run,
)

__all__ = [
    "RANKING",
    "RETRIES",
    "OpenInterval",
    "PromoteOrReject",
    "current_installation",
    "current_run",
    "event_extra",
    "latest_run",
]
