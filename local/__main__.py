"""`python -m local`: start, stop and look at what Freshrank runs on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from local import http, services, shop
from local.errors import LocalError
from local.home import Home
from local.processes import LOOPBACK, PRIVATE_UMASK, Register, Service
from local.servers import airflow
from local.servers.commands import AIRFLOW_COMPONENTS

DEFAULT_SHARE = 0.2
DEFAULT_WEEKS = 8
UNTIL = datetime(2018, 1, 1, tzinfo=UTC)

application = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console(markup=False)

Share = Annotated[
    float, typer.Option(min=0.01, max=1.0, help="The share of the bundled shop's shoppers.")
]


@application.command()
def up(share: Share = DEFAULT_SHARE) -> None:
    """Start PostgreSQL, MLflow and Airflow, and load the bundled shop if it is not there."""
    home = Home.from_environment(os.environ)
    known = home.login_file.exists()
    with _reported(), console.status("Starting PostgreSQL, MLflow and Airflow (half a minute)"):
        stack = services.start(home)
        if not shop.is_loaded(stack.postgres):
            console.print(f"Loading the bundled shop, {share:.0%} of its shoppers")
            shop.load(stack.postgres, share=share, until=UNTIL, console=console)
    console.print(f"Airflow   {stack.airflow_url}")
    console.print(f"MLflow    {stack.mlflow_url}")
    login = f"as before, in {home.login_file}" if known else stack.login
    console.print(f"Login     {login}", soft_wrap=True)
    console.print(f"Settings  source {home.environment_file}", soft_wrap=True)
    console.print("Stop everything with `make down`; the data stays.")


@application.command()
def down() -> None:
    """Stop everything that `up` or `demo` started; the data stays."""
    with _reported(), console.status("Stopping"):
        stopped = services.shut_down(Home.from_environment(os.environ))
    console.print(f"Stopped {', '.join(stopped)}" if stopped else "Nothing was running")


@application.command()
def clean() -> None:
    """Stop everything and DELETE its databases, lake, models and logs."""
    home = Home.from_environment(os.environ)
    with _reported(), console.status("Stopping and deleting"):
        services.shut_down(home)
        home.delete()
    console.print(f"Deleted {home.path}", soft_wrap=True)


@application.command()
def status() -> None:
    """Say what runs where; exit with 1 when something does not answer."""
    home = Home.from_environment(os.environ)
    known = Register(home.services_file).read()
    table = Table("service", "state", "process", "where", "log", title=str(home.path))
    killed = services.orphaned(home)
    states = {
        name: "orphaned" if name in killed else _state(name, known)
        for name in ("postgres", "mlflow", *AIRFLOW_COMPONENTS)
    }
    for name, state in states.items():
        service = known.get(name)
        process = str(service.pid) if service and service.process() else ""
        table.add_row(name, state, process, _where(service), service.log if service else "")
    console.print(table)
    if set(states.values()) != {"answers"}:
        console.print(
            "`make up` starts what does not run, and ends what is left of what was killed."
        )
        raise typer.Exit(1)


@application.command()
def demo(
    share: Share = DEFAULT_SHARE,
    weeks: Annotated[
        int, typer.Option(min=1, max=44, help="Weeks to replay after the first model.")
    ] = DEFAULT_WEEKS,
) -> None:
    """Replay a real shop's weeks through Airflow, and show what the ranker learned."""
    from local.demo.weeks import (
        main,  # it draws, and drawing costs a second that `down` need not pay
    )

    with _reported():
        main(share, weeks)


@application.command()
def env() -> None:
    """Print the file that holds the settings, for `source "$(python -m local env)"`."""
    path = Home.from_environment(os.environ).environment_file
    with _reported():
        if not path.exists():
            raise LocalError(f"{path} is not there yet; `make up` writes it")
    typer.echo(path)


@contextmanager
def _reported() -> Iterator[None]:
    """Turn what a person can mend into one message and exit code 1."""
    try:
        yield
    except LocalError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except subprocess.CalledProcessError as error:
        # The command line may hold a database URL with its password: name the program only.
        printed = str(error.output or "").strip()
        print(f"Error: {error.cmd[0]} ended with {error.returncode}\n{printed}", file=sys.stderr)
        raise typer.Exit(1) from error


def _state(name: str, known: dict[str, Service]) -> str:
    """`stopped`, `silent` (it runs but does not answer) or `answers`; see also `orphaned`."""
    service = known.get(name)
    if service is None or service.process() is None:
        return "stopped"
    api = known.get("airflow-api-server")
    if name in AIRFLOW_COMPONENTS:
        answers = api is not None and name in airflow.healthy(api.url())
    elif name == "mlflow":
        answers = http.get(f"{service.url()}/health") is not None
    else:
        answers = True
    return "answers" if answers else "silent"


def _where(service: Service | None) -> str:
    if service is None or service.port is None or service.process() is None:
        return ""
    return f"{LOOPBACK}:{service.port}" if service.name == "postgres" else service.url()


if __name__ == "__main__":
    # What the demo and the shop's loader write below the home is not for other accounts either.
    os.umask(PRIVATE_UMASK)
    application()
