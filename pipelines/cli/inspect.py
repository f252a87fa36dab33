"""Commands that read and change nothing: status, rows, doctor, settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pipelines.cli.terminal import AsJson, ShopName, installation_of, say, screen, settings_of


def status(shop: ShopName = None, as_json: AsJson = False) -> None:
    """Show decided intervals, what was synced and waits at each source, and whose turn it is."""
    from pipelines.inspect import freshness, status_tables
    from pipelines.inspect.status import report_of

    installation = installation_of(shop)
    report = report_of(installation)
    turn = installation.ledger.turns.standing()
    report["turn"] = turn.as_dict() if turn else None
    report["sources"] = [each.as_dict() for each in freshness.sources(installation)]
    if as_json:
        typer.echo(json.dumps(report))
        return
    if report["intervals"]:
        screen.print(*status_tables.decisions(report), sep="\n")
    else:
        name = installation.shop.shop
        typer.echo(f"{name}: no interval was decided yet; `make demo` or `python -m pipelines run`")
    screen.print(*status_tables.sources(report["synced"], report["sources"]), sep="\n")
    typer.echo(f"turn: {turn or 'nobody is at work'}")


def rows(
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
    most = 20 if limit is None and to is None else limit
    with history.rows_at(installation_of(shop), table, utc(at), most) as held:
        if to is None:
            screen.print(export.terminal_table(held))
        else:
            say.print(f"{export.write(held, to):,} rows of {table} in {to}")


def doctor(shop: ShopName = None) -> None:
    """Check settings, connections, versions and disk, and say what to do."""
    from pipelines.inspect import doctor

    well = True
    for finding in doctor.examine(*settings_of(shop)):
        mark = ("✓", "green") if finding.well else ("✗", "red")
        line = Text.assemble(mark, f" {finding.subject:<9} {finding.message}")
        say.print(line, soft_wrap=True)
        well = well and finding.well
    if not well:
        raise typer.Exit(1)


def settings() -> None:
    """Print docs/settings.md, the page of all settings."""
    from pipelines.inspect import settings_page

    typer.echo(settings_page.page(), nl=False)
