"""The command: plays schedules, and says what was found."""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.chaos.play import Outcome, played

STAGES = ("extract", "validate", "features", "train", "evaluate", "promote", "publish", "maintain")
LIBRARIES = ("mlflow", "lightgbm", "great_expectations", "duckdb", "ibis", "deltalake", "pandas")


def main(
    seed: Annotated[int, typer.Option(help="The first seed; the same gives the same.")] = 1,
    schedules: Annotated[int, typer.Option(help="Number of seeds, one schedule each.")] = 1,
    weeks: Annotated[int, typer.Option(help="Weeks of each history.", min=4)] = 6,
    faults: Annotated[int, typer.Option(help="Events in each week.")] = 6,
    heavy: Annotated[int, typer.Option(help="Events of one shopper.")] = 2_000,
    minutes: Annotated[float, typer.Option(help="Begin no schedule after so long.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON line.")] = False,
) -> None:
    """Let everything happen to a small shop's runs, and compare with a clean run of its history.

    The last line is one JSON object: `schedules`, `faults` that happened, how many `healed`,
    `rows_lost`, `rows_doubled`, `decisions_differing`, and `complaints`, which all say their seed
    and week. Exit code 1 if there are any.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        preload()
        for number in range(seed, seed + schedules):
            if time.monotonic() - began > 60 * minutes:
                break
            say = _silent if as_json else console.print
            say(f"seed {number}")
            home = Path(folder) / f"seed {number}"
            try:
                outcomes.append(played(home, number, weeks, faults, heavy, say))
            except RuntimeError as error:
                say(str(error))
                outcomes.append(Outcome(complaints=[str(error)]))
    result = total(outcomes)
    typer.echo(json.dumps({**result, "seconds": round(time.monotonic() - began)}))
    raise typer.Exit(bool(result["complaints"]))


def preload() -> None:
    """Import what every attempt needs, so that children need not; starts no thread."""
    for name in (*LIBRARIES, *(f"pipelines.{stage}" for stage in STAGES)):
        importlib.import_module(name)


def total(outcomes: list[Outcome]) -> dict[str, object]:
    """The sums over some schedules."""
    return {
        "schedules": len(outcomes),
        "faults": sum(each.faults for each in outcomes),
        "healed": sum(each.healed for each in outcomes),
        "rows_lost": sum(each.rows_lost for each in outcomes),
        "rows_doubled": sum(each.rows_doubled for each in outcomes),
        "decisions_differing": sum(each.decisions_differing for each in outcomes),
        "steps_hit": len(set().union(*(each.coverage for each in outcomes))),
        "complaints": [line for each in outcomes for line in each.complaints],
    }


def _silent(line: str) -> None:
    del line
