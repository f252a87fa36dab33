"""Empty databases for a ledger, of each kind that a ledger may lie in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.servers.mariadb import MariadbServer
from local.servers.postgres import PostgresServer

SERVERS = [pytest.param(each, marks=pytest.mark.services) for each in ("postgres", "mariadb")]
ALL = ["sqlite", *SERVERS]
"""For `indirect` parameters of the fixture `ledger_url`."""


def empty(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a new database."""
    if kind == "sqlite":
        return f"sqlite:///{folder}/ledger.db"
    server: PostgresServer | MariadbServer = request.getfixturevalue(kind)
    name = f"ledger_{os.urandom(4).hex()}"
    if isinstance(server, MariadbServer):
        server.execute(f"create database {name}")
        return server.url(name)
    with server.connect("postgres") as connection:
        connection.execute(f"create database {name}")
    return server.url(name)
