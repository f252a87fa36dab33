"""Commands on the lake: verify, maintain, backup, forget."""

from __future__ import annotations

import getpass
import json
from typing import Annotated

import typer

from pipelines.cli.terminal import AsJson, OneTable, ShopName, installation_of, say, screen, tracked
from pipelines.shared.errors import SettingsError
from pipelines.shared.intervals import Interval


def verify(
    shop: ShopName = None,
    start: Annotated[str | None, typer.Option(help="Only from this day on (UTC).")] = None,
    end: Annotated[str | None, typer.Option(help="Only before this day (UTC).")] = None,
    table: OneTable = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make what is wrong again, from source and changes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read and hash every partition that the ledger knows of; exit 1 when something is wrong."""
    from pipelines import maintain
    from pipelines.maintain.report import faults

    installation = installation_of(shop)
    interval = Interval.of(start or "0001-01-01", end or "9999-12-31") if start or end else None
    report = maintain.verify(installation, interval, table, tracked("verify", as_json))
    if repair and report.faults:
        for line in maintain.repair(installation, report.faults):
            say.print(line)
        report = maintain.verify(installation, interval, table, tracked("verify", as_json))
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        screen.print(*faults(report), sep="\n", soft_wrap=True)
    if report.faults:
        raise typer.Exit(1)


def maintain(shop: ShopName = None, as_json: AsJson = False) -> None:
    """Remove what the declared retention expires, merge small files, delete unneeded ones."""
    from pipelines import maintain
    from pipelines.maintain.report import upkeep

    kept = maintain.run(installation_of(shop), tracked("maintain", as_json))
    typer.echo(json.dumps(kept.as_dict()) if as_json else "\n".join(upkeep(kept)))


def backup(shop: ShopName = None) -> None:
    """Copy what is new in the lake to FRESHRANK_BACKUP; `verify --repair` takes from there."""
    from pipelines import maintain

    installation = installation_of(shop)
    root = installation.settings.backup
    if not root:
        raise SettingsError(
            "FRESHRANK_BACKUP is not set: give it the folder or object-store URL of a lake's copy"
        )
    typer.echo(f"{installation.shop.shop}: {maintain.back_up(installation)} files copied to {root}")


def forget(
    reason: Annotated[
        str, typer.Option(help="For the record; must not say who, e.g. the request's number.")
    ],
    shopper: Annotated[
        str | None, typer.Option(help="The shopper's id, as the shop's own tables have it.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="All forgotten before: an old copy of the lake is back.")
    ] = False,
    by: Annotated[
        str | None, typer.Option(help="Who asks for it; default the user of this machine.")
    ] = None,
    shop: ShopName = None,
    as_json: AsJson = False,
) -> None:
    """Erase all that is stored of a shopper, and let no extraction bring them back."""
    from pipelines import maintain
    from pipelines.maintain.report import forgot

    if (shopper is None) is not again:
        raise typer.BadParameter("give either --shopper or --again")
    installation, actor = installation_of(shop), by or getpass.getuser()
    if shopper is None:
        done = maintain.forget_again(installation, reason, actor)
    else:
        done = maintain.forget(installation, shopper, reason, actor)
    typer.echo(json.dumps(done.as_dict()) if as_json else "\n".join(forgot(done)))
