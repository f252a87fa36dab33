"""Commands that run stages: run, extract, publish, tune."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.cli.terminal import End, OneTable, ShopName, Start, run_of, say, settings_of
from pipelines.shared.intervals import Interval


def run(
    start: Start,
    end: End,
    shop: ShopName = None,
    as_one: Annotated[
        bool, typer.Option("--as-one", help="Decide once for the whole stretch (a first load).")
    ] = False,
) -> None:
    """Take the intervals between START and END through every stage, oldest first."""
    from rich.progress import Progress

    from pipelines import loop

    settings, name = settings_of(shop)
    runs = loop.runs(settings, name, Interval.of(start, end), as_one=as_one)
    with Progress(console=say, transient=True) as progress:
        trees = progress.add_task("  trees", visible=False)

        def grown(done: int, wanted: int) -> None:
            progress.update(trees, completed=done, total=wanted, visible=done < wanted)

        for each in runs:
            say.print(str(each.interval), style="bold")
            loop.run_interval(each, lambda stage, line: say.print(f"  {stage:<9} {line}"), grown)


def extract(
    start: Start,
    end: End,
    shop: ShopName = None,
    table: OneTable = None,
    reextract: Annotated[
        bool, typer.Option("--reextract", help="Read what is on record from the source again.")
    ] = False,
) -> None:
    """Bring the changes between START and END into the lake; what is on record stays as it is."""
    from pipelines import extract, loop

    run = run_of(shop, start, end)
    if table is not None:
        run.shop.require_table(table)
    tables = run.shop.tables if table is None else [table]
    done, away = loop.extract_tables(run, tables, extract.reextract if reextract else extract.run)
    for each in done:
        say.print(f"{each.table}: {each.rows:,} changes")
    loop.require_no_source_away(away)


def publish(start: Start, end: End, shop: ShopName = None) -> None:
    """Write the champion's lists, from the state at END, into the shop's database."""
    from pipelines import loop

    say.print_json(json.dumps(loop.publish(run_of(shop, start, end))))


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
