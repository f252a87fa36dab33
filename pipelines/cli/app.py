"""The command line: `python -m pipelines`.

Exit codes: 0 well, 1 a permanent error, 2 wrong usage, 75 a transient error (try again).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from pipelines.shared.errors import FreshrankError, SourceUnavailable, TransientError
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation, Run
from pipelines.shared.settings import Settings, load_settings

EX_TEMPFAIL = 75
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

app = typer.Typer(help="Freshrank's stages without Airflow.", no_args_is_help=True)
capture = typer.Typer(help="Change capture in the shop's database.", no_args_is_help=True)
app.add_typer(capture, name="capture")
features = typer.Typer(help="The features: what they mean, and their values.", no_args_is_help=True)
app.add_typer(features, name="features")
say = Console(stderr=True, highlight=False)

ShopName = Annotated[
    str | None, typer.Option("--shop", help="A folder of shops/; default FRESHRANK_SHOP.")
]
Start = Annotated[str, typer.Option(help="First day, e.g. 2017-01-02 (UTC).")]
End = Annotated[str, typer.Option(help="Day after the last, e.g. 2017-01-09 (UTC).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _explained(command: Callable[P, R]) -> Callable[P, R]:
    """Turn Freshrank's errors into one line and an exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except FreshrankError as error:
            say.print(f"[bold red]{type(error).__name__}:[/] {error}", soft_wrap=True)
            code = EX_TEMPFAIL if isinstance(error, TransientError) else 1
            raise typer.Exit(code) from None

    return wrapped


@app.command("run")
@_explained
def run_command(
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

    settings, name = _installation(shop)
    runs = loop.runs(settings, name, Interval.of(start, end), as_one=as_one)
    with Progress(console=say, transient=True) as progress:
        trees = progress.add_task("  trees", visible=False)

        def grown(done: int, wanted: int) -> None:
            progress.update(trees, completed=done, total=wanted, visible=done < wanted)

        for run in runs:
            say.print(f"[bold]{run.interval}[/]")
            loop.run_interval(run, lambda stage, line: say.print(f"  {stage:<9} {line}"), grown)


@app.command("extract")
@_explained
def extract_command(
    start: Start,
    end: End,
    shop: ShopName = None,
    table: Annotated[str | None, typer.Option(help="Only this source table.")] = None,
    reextract: Annotated[
        bool,
        typer.Option("--reextract", help="Read what is on record from the source once more."),
    ] = False,
) -> None:
    """Bring the changes between START and END into the lake; what is on record stays as it is."""
    from pipelines import extract, loop

    run = Run.of(*_installation(shop), Interval.of(start, end))
    if table is not None:
        run.shop.require_table(table)
    tables = run.shop.tables if table is None else [table]
    done, away = loop.extract_tables(run, tables, extract.again if reextract else extract.run)
    for each in done:
        say.print(f"{each.table}: {each.rows:,} changes")
    if away:
        raise SourceUnavailable("; ".join(away))


@app.command("publish")
@_explained
def publish_command(start: Start, end: End, shop: ShopName = None) -> None:
    """Write the champion's lists, from the state at END, into the shop's database."""
    from pipelines import loop

    settings, name = _installation(shop)
    published = loop.publish(Run.of(settings, name, Interval.of(start, end)))
    say.print_json(json.dumps(published))


@app.command("status")
@_explained
def status_command(shop: ShopName = None, as_json: AsJson = False) -> None:
    """Show every decided interval, what was synced from each source, and what waits there."""
    from pipelines.inspect import freshness, status

    installation = Installation.open(*_installation(shop))
    name = installation.shop.shop
    report = status.status(installation.ledger, name)
    sources = [each.as_dict() for each in freshness.freshness(installation)]
    if as_json:
        typer.echo(json.dumps(report | {"sources": sources}))
        return
    screen = Console(highlight=False)
    if report["intervals"]:
        screen.print(*status.tables(report), sep="\n")
    else:
        typer.echo(f"{name}: no interval was decided yet; `make demo` or `python -m pipelines run`")
    screen.print(*status.source_tables(report["synced"], sources), sep="\n")


@app.command("tune")
@_explained
def tune_command(
    start: Start,
    end: End,
    shop: ShopName = None,
    trials: Annotated[int, typer.Option(min=2, help="How many settings to try.")] = 20,
    intervals: Annotated[int, typer.Option(min=2, help="Learned and scored in turn.")] = 6,
) -> None:
    """Search for better settings of learning on the intervals up to the run's; change nothing."""
    from dataclasses import asdict

    from rich.progress import Progress

    from pipelines import train
    from pipelines.evaluate.tracking.studies import record_study

    run = Run.of(*_installation(shop), Interval.of(start, end))
    folder = run.lake.local_root / "tuning"
    with Progress(console=say, transient=True) as progress:
        task = progress.add_task("tune", total=trials)
        study = train.tune(
            run, trials, intervals, folder, lambda done, _: progress.update(task, completed=done)
        )
    surface = run.shop.surface.name
    found = [asdict(trial) for trial in study.trials]
    record_study(run.settings.mlflow_uri, f"{run.shop.shop}/{surface}", study.name, found)
    own, best = study.trials[0], study.best
    say.print(f"NDCG@10 on {len(study.intervals)} intervals: {own.ndcg_at_10:.4f} as declared")
    if study.proposal is None:
        say.print("no better settings were found")
    else:
        say.print(f"{best.ndcg_at_10:.4f} with {best.settings}")
        say.print(f"take {study.proposal} into shop.yaml: what it trains meets the gate as ever")


@app.command("verify")
@_explained
def verify_command(
    shop: ShopName = None,
    start: Annotated[str | None, typer.Option(help="Only from this day on (UTC).")] = None,
    end: Annotated[str | None, typer.Option(help="Only before this day (UTC).")] = None,
    table: Annotated[str | None, typer.Option(help="Only this source table.")] = None,
    mend: Annotated[
        bool, typer.Option("--repair", help="Make what is wrong again, from source and changes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read and hash every partition that the ledger knows of; exit 1 when something is wrong."""
    from pipelines import maintain
    from pipelines.maintain.report import faults

    installation = Installation.open(*_installation(shop))
    interval = Interval.of(start or "0001-01-01", end or "9999-12-31") if start or end else None
    report = maintain.verify(installation, interval, table, _tracked("verify", as_json))
    if mend and report.faults:
        for line in maintain.repair(installation, report.faults):
            say.print(line)
        report = maintain.verify(installation, interval, table, _tracked("verify", as_json))
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        Console(highlight=False).print(*faults(report), sep="\n", soft_wrap=True)
    if report.faults:
        raise typer.Exit(1)


@app.command("rows")
@_explained
def rows_command(
    table: Annotated[str, typer.Argument(help="A declared table.")],
    at: Annotated[str, typer.Option(help="The end of an interval, e.g. 2017-03-06 (UTC).")],
    shop: ShopName = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="At most so many; default 20 on a terminal.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Write a .parquet or .csv file instead of a table.")
    ] = None,
) -> None:
    """Show what a table of the shop held at a time, from its extracted changes."""
    from pipelines.inspect import export, history
    from pipelines.shared.intervals import utc

    if to is not None:
        export.require_format(to)
    installation = Installation.open(*_installation(shop))
    most = 20 if limit is None and to is None else limit
    with history.rows_at(installation, table, utc(at), most) as rows:
        if to is None:
            Console(highlight=False).print(export.shown(rows))
        else:
            say.print(f"{export.write(rows, to):,} rows of {table} in {to}")


@app.command("maintain")
@_explained
def maintain_command(shop: ShopName = None, as_json: AsJson = False) -> None:
    """Remove what the declared retention lets go, merge small files, delete unneeded ones."""
    from pipelines import maintain

    installation = Installation.open(*_installation(shop))
    kept = maintain.run(installation, _tracked("maintain", as_json))
    if as_json:
        typer.echo(json.dumps(kept.as_dict()))
        return
    for line in kept.expired:
        typer.echo(f"expired {line}")
    for table, changes in kept.pruned.items():
        typer.echo(f"pruned {changes:,} captured changes of {table} in the shop's database")
    typer.echo(
        f"{kept.shop}: {len(kept.expired)} expired, {kept.merged} files of {kept.compacted} "
        f"partitions merged, {kept.vacuumed} files deleted"
    )


@app.command("backup")
@_explained
def backup_command(shop: ShopName = None) -> None:
    """Copy what is new in the lake to FRESHRANK_BACKUP; `verify --repair` takes from there."""
    from pipelines import maintain
    from pipelines.shared.errors import SettingsError

    installation = Installation.open(*_installation(shop))
    if not installation.settings.backup:
        raise SettingsError(
            "FRESHRANK_BACKUP is not set: give it the folder or object-store URL of a lake's copy"
        )
    copied = maintain.back_up(installation)
    typer.echo(f"{installation.shop.shop}: {copied} files copied to {installation.settings.backup}")


def _tracked(what: str, quiet: bool) -> Callable[[Sequence[T]], Iterable[T]]:
    """Show on stderr how far a walk through many things is."""
    from rich.progress import track

    return lambda items: track(items, what, console=say, transient=True, disable=quiet)


@app.command("doctor")
@_explained
def doctor_command(shop: ShopName = None) -> None:
    """Check settings, connections, versions and disk, and say what to do."""
    from pipelines.inspect import doctor

    settings, name = _installation(shop)
    well = True
    for finding in doctor.examine(settings, name):
        mark = "[green]✓[/]" if finding.well else "[red]✗[/]"
        say.print(f"{mark} {finding.subject:<9} {finding.message}", soft_wrap=True)
        well = well and finding.well
    if not well:
        raise typer.Exit(1)


@features.command("list")
@_explained
def features_list_command(
    shop: ShopName = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/features.md, the data dictionary.")
    ] = False,
) -> None:
    """Show every feature of the shop by family."""
    from pipelines.inspect import explain
    from pipelines.inspect import feature_tables as display
    from pipelines.shared.declaration import load_shop

    settings, name = _installation(shop)
    declared = load_shop(name, settings.shops)
    if markdown:
        typer.echo(explain.dictionary(declared), nl=False)
        return
    Console(highlight=False).print(*display.families(declared), sep="\n")


@features.command("describe")
@_explained
def features_describe_command(
    name: Annotated[str, typer.Argument(help="A feature, e.g. pair_cycle.")],
    shop: ShopName = None,
) -> None:
    """Tell a feature's meaning, grain, unit, type, idea and the counters it reads."""
    from pipelines.inspect import explain
    from pipelines.inspect import feature_tables as display
    from pipelines.shared.declaration import load_shop

    settings, of = _installation(shop)
    found = explain.feature(load_shop(of, settings.shops), name)
    Console(highlight=False).print(display.description(found))


@features.command("show")
@_explained
def features_show_command(
    shopper: Annotated[str, typer.Option(help="A shopper's id.")],
    at: Annotated[str, typer.Option(help="A time, e.g. 2017-03-06T09:30 (UTC).")],
    item: Annotated[
        str | None, typer.Option(help="An item's id: its values and their counters.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=20, help="So many candidates.")] = 5,
    shop: ShopName = None,
) -> None:
    """Show a shopper's best candidates, or one item, with every feature's value at a time."""
    from pipelines.inspect import explain
    from pipelines.inspect import feature_tables as display
    from pipelines.shared.intervals import utc

    installation = Installation.open(*_installation(shop))
    shown = explain.show(installation, shopper, utc(at), item, top)
    say.print(display.heading(shown))
    Console(highlight=False).print(display.values(shown, installation.shop))


@capture.command("install")
@_explained
def install_command(shop: ShopName = None) -> None:
    """Install change capture and take the tables' rows as the first changes."""
    _capture(shop, "install")


@capture.command("remove")
@_explained
def remove_command(shop: ShopName = None) -> None:
    """Remove change capture and every trace of it."""
    _capture(shop, "remove")


def _capture(shop: str | None, action: str) -> None:
    from pipelines import extract
    from pipelines.shared.declaration import load_shop

    settings, name = _installation(shop)
    actions: dict[str, Callable[..., Any]] = {"install": extract.install, "remove": extract.remove}
    away = []
    for part in load_shop(name, settings.shops).parts():
        try:
            actions[action](settings.connection(part.source.connection), part)
        except SourceUnavailable as error:
            away.append(f"source {part.source_name}: {error}")
        else:
            say.print(f"capture {action}: {part.source_name}: {', '.join(part.tables)}")
    if away:
        raise SourceUnavailable("; ".join(away))


def _installation(shop: str | None) -> tuple[Settings, str]:
    settings = load_settings()
    return settings, shop or settings.shop
