"""The interval and the shop that an Airflow run is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.sdk import Asset, get_current_context

from freshrank_airflow.settings import settings_for
from pipelines.shared.errors import IntervalError
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation, Run

RANKING = Asset("freshrank://ranking")
"""The asset that changes with every decision: a new champion, or a new state of the shop."""


def interval_of(context: Mapping[str, Any]) -> Interval:
    """The interval of a run: its `start` and `end` params, else its data interval.

    Raises:
        IntervalError: there is neither, or only one of the two params was given.
    """
    start, end = (context["params"].get(name) for name in ("start", "end"))
    if start and end:
        return Interval.of(start, end)
    if start or end:
        raise IntervalError("give both `start` and `end`, or neither")
    first, last = context.get("data_interval_start"), context.get("data_interval_end")
    if first is None or last is None or first == last:
        raise IntervalError(
            "this run has no data interval; trigger it with the params `start` and `end`, "
            'e.g. --conf \'{"start": "2017-01-02", "end": "2017-01-09"}\''
        )
    return Interval.of(first, last)


def run_of(context: Mapping[str, Any]) -> Run:
    """The `Run` of an Airflow run.

    Raises:
        FreshrankError: settings, shop or interval are wrong; the message says which.
    """
    shop = context["params"].get("shop")
    settings = settings_for(shop)
    return Run.of(settings, shop or settings.shop, interval_of(context))


def current_installation() -> Installation:
    """The shop of the calling task, without an interval."""
    shop = get_current_context()["params"].get("shop")
    settings = settings_for(shop)
    return Installation.open(settings, shop or settings.shop)


def who_triggered() -> str:
    """The name of the user who triggered the calling task's run; Airflow's where nobody did."""
    return str(get_current_context()["dag_run"].triggering_user_name or "Airflow")


def event_extra(run: Run) -> dict[str, str]:
    """A run's shop and interval, as the `extra` of an asset event carries them."""
    return {
        "shop": run.shop.shop,
        "start": run.interval.start.isoformat(),
        "end": run.interval.end.isoformat(),
    }


def latest_intervals(extras: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Of asset events, each shop's whose interval ends last, by the name of the shop."""
    ordered = sorted(extras, key=lambda extra: extra["end"])
    return [each for _, each in sorted({extra["shop"]: extra for extra in ordered}.items())]


def run_of_event(extra: Mapping[str, str]) -> Run:
    """The run that an asset event tells of (`event_extra`)."""
    settings = settings_for(extra["shop"])
    return Run.of(settings, extra["shop"], Interval.of(extra["start"], extra["end"]))
