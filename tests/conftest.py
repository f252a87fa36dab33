"""What the tests share: an installation of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local import postgres as local_postgres
from local.postgres import PostgresServer
from pipelines.shared.settings import Settings

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One embedded PostgreSQL for the whole session."""
    with local_postgres.server(tmp_path_factory.mktemp("postgres")) as server:
        yield server


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
