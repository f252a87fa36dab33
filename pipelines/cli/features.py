"""Commands on features: list, describe, show, rebuild."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.terminal import (
    End,
    ShopName,
    Start,
    installation_of,
    run_of,
    say,
    screen,
    tracked,
)


def families(
    shop: ShopName = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/features.md, the data dictionary.")
    ] = False,
) -> None:
    """Show every feature of the shop by family."""
    from pipelines.inspect import feature_dictionary, feature_tables

    declared = installation_of(shop).shop
    if markdown:
        typer.echo(feature_dictionary.dictionary(declared), nl=False)
        return
    screen.print(*feature_tables.families(declared), sep="\n")


def describe(
    name: Annotated[str, typer.Argument(help="A feature, e.g. pair_cycle.")],
    shop: ShopName = None,
) -> None:
    """Show a feature's meaning, grain, unit, type, idea and the counters it reads."""
    from pipelines.inspect import feature_dictionary, feature_tables

    feature = feature_dictionary.feature(installation_of(shop).shop, name)
    screen.print(feature_tables.description(feature))


def show(
    shopper: Annotated[str, typer.Option(help="A shopper's id.")],
    at: Annotated[str, typer.Option(help="A time, e.g. 2017-03-06T09:30 (UTC).")],
    item: Annotated[
        str | None, typer.Option(help="An item's id: its values and their counters.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=20, help="So many candidates.")] = 5,
    shop: ShopName = None,
) -> None:
    """Show a shopper's best candidates, or one item, with every feature's value at a time."""
    from pipelines.inspect import explain, feature_tables
    from pipelines.shared.intervals import utc

    installation = installation_of(shop)
    shown = explain.show(installation, shopper, utc(at), item, top)
    say.print(feature_tables.heading(shown))
    screen.print(feature_tables.values(shown, installation.shop))


def rebuild(start: Start, end: End, shop: ShopName = None) -> None:
    """Fold the steps between START and END again, and the later ones where that changes them."""
    from pipelines import features

    built = features.run(run_of(shop, start, end), tracked("features", quiet=False))
    say.print(
        f"{len(built.steps)} steps folded, {len(built.healed)} others because of them: "
        f"{built.groups:,} groups, {built.rows:,} candidates"
    )
