"""What every command shares: its usual options, its console, and one line for every error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from pipelines.shared.errors import FreshrankError, TransientError
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation, Run
from pipelines.shared.settings import Settings, load_settings

EX_TEMPFAIL = 75
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# Names and values of the shop may hold square brackets, so no text is markup.
say = Console(stderr=True, highlight=False, markup=False)
screen = Console(highlight=False, markup=False)

ShopName = Annotated[
    str | None, typer.Option("--shop", help="A folder of shops/; default FRESHRANK_SHOP.")
]
Start = Annotated[str, typer.Option(help="First day, e.g. 2017-01-02 (UTC).")]
End = Annotated[str, typer.Option(help="Day after the last, e.g. 2017-01-09 (UTC).")]
OneTable = Annotated[str | None, typer.Option("--table", help="Only this source table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """Turn Freshrank's errors into one line and an exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except FreshrankError as error:
            named = Text.assemble((f"{type(error).__name__}: ", "bold red"), str(error))
            say.print(named, soft_wrap=True)
            code = EX_TEMPFAIL if isinstance(error, TransientError) else 1
            raise typer.Exit(code) from None

    return wrapped


def settings_of(shop: str | None) -> tuple[Settings, str]:
    """The settings, and the name of the shop that a command is for."""
    settings = load_settings()
    return settings, shop or settings.shop


def installation_of(shop: str | None) -> Installation:
    """The shop that a command is for."""
    return Installation.open(*settings_of(shop))


def run_of(shop: str | None, start: str, end: str) -> Run:
    """The run of a shop that a command is for."""
    return Run.of(*settings_of(shop), Interval.of(start, end))


def tracked(what: str, quiet: bool) -> Callable[[Sequence[T]], Iterable[T]]:
    """Show on stderr how far a walk through many things is."""
    from rich.progress import track

    return lambda items: track(items, what, console=say, transient=True, disable=quiet)
