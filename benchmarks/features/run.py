"""The features: how well they rank, and how long they take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from benchmarks.features import quality as features_quality
from benchmarks.features import speed as features_speed


def main(
    share: Annotated[float, typer.Option(help="Share of the households.")] = 0.15,
    weeks: Annotated[int, typer.Option(min=1, max=44, help="So many last weeks count.")] = 26,
    every: Annotated[int, typer.Option(min=1, help="Weeks between two full retrains.")] = 4,
    history: Annotated[int, typer.Option(min=1, help="Times the history, for the slope.")] = 10,
    only: Annotated[
        Literal["quality", "speed"] | None, typer.Option(help="One of the two parts.")
    ] = None,
    ablate: Annotated[
        bool, typer.Option(help="Also leave each family and each source of candidates out.")
    ] = False,
    home: Annotated[
        Path,
        typer.Option(help="Where the replayed year is kept; delete it when features change."),
    ] = Path(".freshrank/benchmarks/features"),
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON line.")] = False,
) -> None:
    """Measure the features on the bundled year.

    The last line is one JSON object. Of quality: `recall_at_300`, `ndcg_at_10` of a full retrain,
    `best_baseline_ndcg` of the best recommender without features, `over_baseline` (the share by
    which the first is above the second) and every baseline's own value. Of speed: the stage's
    seconds for one week over those of SQL by hand (`vs_full_history`, `vs_handwritten`), after and
    before `history` times the history (`history_slope`, `peak_slope`), then beside the SQL over all
    of it (`vs_full_history_long`), `peak_mb`, and the share of rows that equal those of the SQL
    (`equal_rows`).
    """
    console, found = Console(highlight=False), dict[str, Any]()
    if only != "speed":
        quality = features_quality.measure(home, share, weeks, every, ablate)
        if not as_json:
            features_quality.show(console, quality)
        found |= quality
    if only != "quality":
        speed = features_speed.measure(share, history)
        if not as_json:
            features_speed.show(console, speed)
        found |= speed
    print(json.dumps(found))
