"""What the tests share: an installation of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import mariadb as mariadb_server
from benchmarks.servers.mariadb import MariadbServer
from local.servers import postgres as local_postgres
from local.servers.postgres import PostgresServer
from pipelines.shared.settings import Settings
from tests import ledgers
from tests.extract.wal import wal_shop

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One embedded PostgreSQL for the whole session."""
    with local_postgres.server(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def logical_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One embedded PostgreSQL with a logical log for the whole session."""
    with wal_shop.wal_server("bundled", tmp_path_factory.mktemp("logical")) as server:
        yield server


@pytest.fixture(scope="session")
def debian_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Debian's PostgreSQL with a logical log for the whole session; skips where it is missing."""
    with wal_shop.wal_server("debian", tmp_path_factory.mktemp("debian")) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """One private MariaDB with a row binlog for the whole session."""
    if not mariadb_server.installed():
        pytest.skip("needs the Debian package mariadb-server")
    with mariadb_server.server() as server:
        yield server


@pytest.fixture
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the kind that the test's parameter names."""
    return ledgers.empty(request.param, request, tmp_path)


@pytest.fixture
def tiny_settings(tmp_path: Path, postgres: PostgresServer) -> Settings:
    """Settings for the tiny shop: its own lake and ledger, the session's PostgreSQL."""
    return Settings(
        lake=str(tmp_path / "lake"),
        ledger_url=f"sqlite:///{tmp_path}/ledger.db",
        mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db",
        connections={"tiny": postgres.url("shop")},
        shop="tiny",
        shops=PROJECT / "tests" / "declared",
        expectations=PROJECT / "tests" / "declared" / "expectations",
        pseudonym_key="a key for tests",
    )
