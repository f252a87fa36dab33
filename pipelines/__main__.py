"""The command line: `python -m pipelines`.

Exit codes: 0 well, 1 a permanent error, 2 wrong usage, 75 a transient error (try again).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from pipelines.shared.errors import FreshrankError, TransientError
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings, load_settings

EX_TEMPFAIL = 75
P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(help="Freshrank's stages without Airflow.", no_args_is_help=True)
capture = typer.Typer(help="Change capture in the shop's database.", no_args_is_help=True)
app.add_typer(capture, name="capture")
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
    from pipelines import loop

    settings, name = _installation(shop)
    for run in loop.runs(settings, name, Interval.of(start, end), as_one=as_one):
        say.print(f"[bold]{run.interval}[/]")
        loop.run_interval(run, lambda stage, line: say.print(f"  {stage:<9} {line}"))


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
    """Show every decided interval: rows, champion, challengers, gain, verdict, seconds."""
    from pipelines import status
    from pipelines.shared.declaration import load_shop
    from pipelines.shared.ledger import Ledger

    settings, name = _installation(shop)
    surface = load_shop(name, settings.shops).surface.name
    report = status.status(Ledger(settings.ledger_url.get_secret_value(), name, surface), name)
    if as_json:
        typer.echo(json.dumps(report))
    elif report["intervals"]:
        Console(highlight=False).print(*status.tables(report), sep="\n")
    else:
        typer.echo(f"{name}: no interval was decided yet; `make demo` or `python -m pipelines run`")


@app.command("doctor")
@_explained
def doctor_command(shop: ShopName = None) -> None:
    """Check settings, connections, versions and disk, and say what to do."""
    from pipelines import doctor

    settings, name = _installation(shop)
    well = True
    for finding in doctor.examine(settings, name):
        mark = "[green]✓[/]" if finding.well else "[red]✗[/]"
        say.print(f"{mark} {finding.subject:<9} {finding.message}", soft_wrap=True)
        well = well and finding.well
    if not well:
        raise typer.Exit(1)


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
    declared = load_shop(name, settings.shops)
    url = settings.connection(declared.source.connection)
    actions: dict[str, Callable[..., Any]] = {"install": extract.install, "remove": extract.remove}
    actions[action](url, declared)
    say.print(f"capture {action}: {', '.join(declared.tables)}")


def _installation(shop: str | None) -> tuple[Settings, str]:
    settings = load_settings()
    return settings, shop or settings.shop


if __name__ == "__main__":
    app()
