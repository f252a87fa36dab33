"""The command line's commands by name: `python -m pipelines`.

Exit codes: 0 well, 1 a permanent error, 2 wrong usage, 75 a transient error (try again).
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from pipelines.cli import capture, features, inspect, maintain, run
from pipelines.cli.terminal import explained


def _group(text: str, commands: dict[str, Callable[..., None]]) -> typer.Typer:
    group = typer.Typer(help=text, no_args_is_help=True)
    for name, command in commands.items():
        group.command(name)(explained(command))
    return group


app = _group(
    "Freshrank's stages without Airflow.",
    {
        "run": run.run,
        "extract": run.extract,
        "publish": run.publish,
        "status": inspect.status,
        "tune": run.tune,
        "verify": maintain.verify,
        "rows": inspect.rows,
        "maintain": maintain.maintain,
        "backup": maintain.backup,
        "forget": maintain.forget,
        "doctor": inspect.doctor,
        "settings": inspect.settings,
    },
)
app.add_typer(
    _group(
        "Change capture in the shop's database.",
        {"install": capture.install, "remove": capture.remove},
    ),
    name="capture",
)
app.add_typer(
    _group(
        "The features: what they mean, and their values.",
        {
            "list": features.families,
            "describe": features.describe,
            "show": features.show,
            "rebuild": features.rebuild,
        },
    ),
    name="features",
)
