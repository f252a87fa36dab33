"""All services of one home: start them side by side, find them again, stop them."""

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from local.errors import ServiceFailedError
from local.home import LOGIN, PROJECT, Home, write_private
from local.processes import LOOPBACK, PRIVATE_UMASK, Register, Service, end, free_port, stop
from local.servers import airflow, environment, mlflow, postgres
from local.servers.commands import AIRFLOW_COMPONENTS
from local.servers.postgres import PostgresServer
from pipelines.shared.settings import Settings

STOP_GRACE_S = 5.0


@dataclass(frozen=True)
class Stack:
    """The running services of a home, and the environment that points to them."""

    home: Home
    postgres: PostgresServer
    mlflow_url: str
    airflow_url: str
    environment: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        """The settings that the installation's tasks have, for this process."""
        given = self.environment
        return Settings(
            lake=given["FRESHRANK_LAKE"],
            ledger_url=SecretStr(given["FRESHRANK_LEDGER_URL"]),
            mlflow_uri=SecretStr(given["FRESHRANK_MLFLOW_URI"]),
            connections={environment.SHOP: SecretStr(self.postgres.url("shop"))},
            pseudonym_key=SecretStr(given["FRESHRANK_PSEUDONYM_KEY"]),
        )

    @property
    def login(self) -> str:
        """Name and password at both pages: for a person's eyes, never for a log."""
        return f"{LOGIN} {self.home.keys().login_password}"

    def token(self) -> str:
        """A token for Airflow's REST API."""
        return airflow.token(self.airflow_url, self.home.keys().login_password)

    def run(self, *command: str, timeout_s: float = 300.0) -> str:
        """What a command of this virtual environment prints, run in the project's folder.

        Raises:
            ServiceFailedError: the command failed; holds the end of what it printed.
        """
        outcome = subprocess.run(
            environment.program(command),
            env={**environment.inherited(), **self.environment},
            cwd=PROJECT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        if outcome.returncode != 0:
            raise ServiceFailedError(
                f"`{' '.join(command)}` ended with {outcome.returncode}: {outcome.stdout[-2000:]}"
            )
        return outcome.stdout


def start(
    home: Home,
    *,
    dags: Path = PROJECT / "dags",
    durability: Mapping[str, str] = postgres.DURABLE,
    components: Sequence[str] = AIRFLOW_COMPONENTS,
) -> Stack:
    """Start what does not run yet and return when everything answers.

    One call heals what was killed: what is left of a service ends, and it starts again on its port.
    What ran on a database that was killed, or with other settings, begins again: its connections
    are cut, or lead elsewhere. Each of Airflow's components, if there are any, costs some seconds.
    """
    with _exclusively(home):
        register = Register(home.services_file)
        killed = orphaned(home)
        _stop(home, {name: one for name, one in register.read().items() if name in killed})
        known = register.read()
        server = start_database(home, durability)
        mlflow_port = _port(known, "mlflow")
        airflow_port = _port(known, "airflow-api-server")
        mlflow_url = f"http://{LOOPBACK}:{mlflow_port}"
        variables = {
            **environment.freshrank(home, server, mlflow_url),
            **airflow.settings(home, server, airflow_port, dags),
        }
        settings = environment.as_shell(variables)
        if known.get("postgres") != server.service or _stored_settings(home) != settings:
            _stop(home, {name: one for name, one in known.items() if name != "postgres"})
        write_private(home.environment_file, settings)
        password = home.keys().login_password
        write_private(home.login_file, json.dumps({LOGIN: password}) + "\n")
        # MLflow creates its tables while Airflow creates its own.
        tracking = register.running().get("mlflow")
        if tracking is None:
            tracking = mlflow.start(home, server, mlflow_port)
            register.add(tracking)
        if components:
            _start_airflow(home, register, variables, airflow_port, components)
        mlflow.wait(tracking)
        airflow_url = f"http://{LOOPBACK}:{airflow_port}"
        return Stack(home, server, mlflow_url, airflow_url, variables)


def start_database(home: Home, durability: Mapping[str, str]) -> PostgresServer:
    """Start the home's PostgreSQL, if it does not run yet."""
    home.create()
    return postgres.start(
        home.postgres,
        password=home.keys().postgres_password,
        log=home.logs / "postgres.log",
        register=Register(home.services_file),
        durability=durability,
    )


def orphaned(home: Home) -> set[str]:
    """The services whose first process was killed while others that it started live on."""
    register = Register(home.services_file)
    names = set(register.orphaned())
    if "postgres" not in register.running() and postgres.processes_of(home.postgres):
        names.add("postgres")
    return names


def shut_down(home: Home) -> list[str]:
    """Stop every service of the home, databases last; the names of those that ran."""
    if not home.services_file.exists():
        return []
    register = Register(home.services_file)
    ran = {*register.running(), *orphaned(home)}
    # The register keeps the stopped services: the next start takes the same ports if it can.
    return _stop(home, {name: known for name, known in register.read().items() if name in ran})


def _stop(home: Home, chosen: Mapping[str, Service]) -> list[str]:
    """Stop services, those that others need last; their names."""
    # Running tasks report their end to the API server, and that one to the database.
    servers = [chosen[name] for name in ("mlflow", "airflow-api-server") if name in chosen]
    database = chosen.get("postgres")
    workers = [one for one in chosen.values() if one not in (*servers, database)]
    stop(workers, STOP_GRACE_S, signal.SIGTERM)
    stop(servers, STOP_GRACE_S, signal.SIGTERM)
    if database is not None:
        postgres.shut_down(database)
        end(postgres.processes_of(home.postgres))
    return list(chosen)


def _stored_settings(home: Home) -> str:
    """The settings that what runs was started with."""
    return home.environment_file.read_text() if home.environment_file.exists() else ""


@contextmanager
def stack(
    home: Path,
    *,
    dags: Path = PROJECT / "dags",
    components: Sequence[str] = AIRFLOW_COMPONENTS,
) -> Iterator[Stack]:
    """Throwaway services under a folder for the length of a with block.

    Meanwhile this process has MLflow's login in its environment.
    """
    place = Home(home)
    before = {name: os.environ.get(name) for name in environment.credentials(place)}
    try:
        os.environ.update(environment.credentials(place))
        yield start(
            place,
            dags=dags,
            durability=postgres.THROWAWAY,
            components=components,
        )
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        shut_down(place)


def _port(known: Mapping[str, Service], name: str) -> int:
    """The port of the running service, or a free one: last time's, if nobody took it."""
    service = known.get(name)
    if service is not None and service.port is not None and service.process() is not None:
        return service.port
    return free_port(service.port if service else None)


def _start_airflow(
    home: Home,
    register: Register,
    variables: Mapping[str, str],
    port: int,
    components: Sequence[str],
) -> None:
    running = register.running()
    missing = [name for name in components if name not in running]
    if missing:
        airflow.migrate(home, variables)
    for component in missing:
        register.add(airflow.start(home, component, variables, port))
    known = register.read()
    airflow.wait({name: known[name] for name in components})
    airflow.set_ranker_pool(f"http://{LOOPBACK}:{port}", home.keys().login_password)


@contextmanager
def _exclusively(home: Home) -> Iterator[None]:
    """Let a second start of the same home wait for the first; what it writes is the owner's."""
    umask = os.umask(PRIVATE_UMASK)
    try:
        home.create()
        with (home.path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    finally:
        os.umask(umask)
