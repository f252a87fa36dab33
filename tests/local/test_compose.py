"""docker-compose.yml runs what `local` runs, keeps secrets out and stays on loopback."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.servers.commands import COMMANDS
from local.servers.environment import QUIET

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LONG_RUNNING = sorted(set(SERVICES) - {"airflow-migrate", "airflow-pool"})


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_service_runs_the_command_that_local_runs(name: str) -> None:
    assert tuple(SERVICES[name]["command"]) == COMMANDS[name]


def test_no_service_runs_a_command_of_its_own() -> None:
    assert set(SERVICES) == {*COMMANDS, "postgres", "redis"}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_long_running_service_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_every_published_port_is_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_every_secret_comes_from_the_environment() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD$|SECRET|_KEY$|BROKER_URL", key):
                assert "${" in str(value), f"{name}: {key} is written out"
            for password in re.findall(r"://[^:/]*:([^@/]+)@", str(value)):
                assert password.startswith("${"), f"{name}: {key} carries a password"


def test_every_variable_stands_in_the_example() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", TEXT))
    example = (PROJECT / ".env.example").read_text()
    assert used == set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))


def test_a_variable_without_a_default_is_demanded() -> None:
    assert not re.findall(r"(?<!\$)\$\{[A-Z_]+\}", TEXT)


def test_every_named_volume_is_declared_and_used() -> None:
    mounted = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith(".")
    }
    assert mounted == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_nothing_reports_home(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert {key: environment.get(key) for key in QUIET} == QUIET


def test_the_files_that_compose_names_are_there() -> None:
    assert (PROJECT / COMPOSE["x-image"]["build"]["dockerfile"]).is_file()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (PROJECT / volume.split(":")[0]).is_file()
