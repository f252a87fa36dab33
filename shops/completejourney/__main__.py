"""`python -m shops.completejourney load` and `check`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from pipelines.shared.errors import FreshrankError
from pipelines.shared.intervals import utc
from shops.completejourney.load import load
from shops.completejourney.package import data_files

app = typer.Typer(
    help="The bundled shop: a grocer's year 2017, replayed in a PostgreSQL database.",
    no_args_is_help=True, add_completion=False,
)  # fmt: skip


@app.command("load")
def load_shop(
    url: Annotated[str, typer.Option(help="The database, as an SQLAlchemy URL.")],
    share: Annotated[float, typer.Option(help="Of the households, in (0, 1].")] = 1.0,
    until: Annotated[str, typer.Option(help="Make the changes before it.")] = "2018-01-01",
) -> None:
    """Replace the shop's tables by a shop that has lived until a day, without capture."""
    with _reported():
        rows = load(url, share=share, until=utc(until))
    for table, count in rows.items():
        typer.echo(f"{table:12} {count:>10,}")


@app.command()
def check() -> None:
    """Check the data files against the record of the wheel that brought them."""
    with _reported():
        data_files()


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except FreshrankError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
