"""`python -m benchmarks NAME`: every benchmark is a command; `--help` lists them."""

from __future__ import annotations

import typer

from benchmarks import extract, features, learn, loop

application = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Where the project's figures come from."
)
application.command("loop")(loop.main)
application.command("extract")(extract.main)
application.command("features")(features.main)
application.command("learn")(learn.main)


@application.callback()
def _several() -> None:
    """Where the project's figures come from."""


if __name__ == "__main__":
    application()
