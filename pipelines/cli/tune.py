"""The command that searches for better settings of learning."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.terminal import End, ShopName, Start, run_of, say


def tune(
    start: Start,
    end: End,
    shop: ShopName = None,
    trials: Annotated[int, typer.Option(min=2, help="How many settings to try.")] = 20,
    intervals: Annotated[int, typer.Option(min=2, help="Learned and scored in turn.")] = 6,
) -> None:
    """Search for better settings of learning on the intervals up to the run's; change nothing."""
    from rich.progress import Progress

    from pipelines import loop

    with Progress(console=say, transient=True) as progress:
        task = progress.add_task("tune", total=trials)
        study = loop.tune(
            run_of(shop, start, end),
            trials,
            intervals,
            lambda done, _: progress.update(task, completed=done),
        )
    own, best = study.trials[0], study.best
    say.print(f"NDCG@10 on {len(study.intervals)} intervals: {own.ndcg_at_10:.4f} as declared")
    if study.proposal is None:
        say.print("no better settings were found")
    else:
        say.print(f"{best.ndcg_at_10:.4f} with {best.settings}")
        say.print(f"take {study.proposal} into shop.yaml: what it trains meets the gate as ever")
