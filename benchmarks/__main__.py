"""`python -m benchmarks NAME`: every benchmark is a command; `--help` lists them."""

from __future__ import annotations

import typer

from benchmarks import loop
from benchmarks.chaos import run as chaos
from benchmarks.extract import run as extract
from benchmarks.features import run as features
from benchmarks.learn import run as learn

application = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Where the project's figures come from."
)
application.command("loop")(loop.main)
application.command("extract")(extract.main)
application.command("features")(features.main)
application.command("learn")(learn.main)
application.command("chaos")(chaos.main)


if __name__ == "__main__":
    application()
