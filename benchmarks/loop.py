"""The loop without Airflow, beside frozen and retrained models."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from local import services, shop
from local.demo import curves
from local.demo.progress import Bar
from local.demo.weeks import FIRST, WARM_UP_WEEKS, WEEK
from local.servers.environment import QUIET, SHARED_CORES
from pipelines import loop
from pipelines.inspect import status
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings

SHOP = "completejourney"
say = Console(stderr=True, highlight=False)


def main(
    share: Annotated[float, typer.Option(help="Share of the households.")] = 0.2,
    weeks: Annotated[int, typer.Option(help="Weeks after the first model.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON line.")] = False,
) -> None:
    """Replay the bundled shop and compare served, frozen and retrained models.

    The last line is one JSON object: mean NDCG@10 of each, the share of the distance from frozen
    to retrained that the served champion closed (`gap_closed`), training seconds of the loop over
    those of the weekly retrain (`training_cost_share`), seconds of a week by stage, promotions.
    """
    first = Interval(FIRST, FIRST + WARM_UP_WEEKS * WEEK)
    later = Interval(first.end, first.end + timedelta(weeks=weeks))
    with (
        tempfile.TemporaryDirectory() as home,
        _installed(Path(home), share, later.end) as settings,
    ):
        started = time.monotonic()
        loop.run_interval(Run.of(settings, SHOP, first), _quiet)
        for run in loop.runs(settings, SHOP, later, as_one=False):
            loop.run_interval(run, _quiet)
            say.print(f"{run.interval.key[:10]} after {time.monotonic() - started:.0f} s")
        with Progress(disable=True) as progress:
            found = curves.references(settings, SHOP, first, later, Bar(progress))
        if not as_json:
            curves.show(Console(highlight=False), settings, SHOP, found, share)
        report = status.report_of(Run.of(settings, SHOP, first))
    print(json.dumps(_summary(found, report) | {"share": share, "weeks": weeks}))


@contextmanager
def _installed(home: Path, share: float, until: datetime) -> Iterator[Settings]:
    """PostgreSQL, MLflow and the bundled shop under `home`, without Airflow; stopped at the end."""
    os.environ.update(QUIET | SHARED_CORES)
    with services.stack(home, components=()) as running:
        shop.load(running.postgres, share=share, until=until, console=Console(quiet=True))
        yield running.settings


def _summary(found: list[curves.Week], report: dict[str, object]) -> dict[str, object]:
    frozen, served, retrained = (
        statistics.mean(getattr(week, name) for week in found)
        for name in ("frozen", "served", "retrained")
    )
    intervals: list[dict[str, dict[str, float]]] = report["intervals"]  # type: ignore[assignment]
    later = [entry["seconds"] for entry in intervals[1:]]
    # The first week has no retrain of its own: the first model serves as one.
    paired = found[1:]
    update_s = sum(week.update_s for week in found[:-1])
    retrain_s = sum(week.retrain_s for week in paired)
    distance = retrained - frozen
    return {
        "frozen": round(frozen, 4),
        "served": round(served, 4),
        "retrained": round(retrained, 4),
        "gap_closed": round((served - frozen) / distance, 3) if distance > 0 else None,
        "training_cost_share": round(update_s / retrain_s, 3) if retrain_s else None,
        "promotions": sum(bool(entry.get("promoted")) for entry in intervals),
        "week_seconds": {
            stage: round(statistics.mean(week[stage] for week in later), 2)
            for stage in status.STAGES
        },
    }


def _quiet(stage: str, line: str) -> None:
    del stage, line
