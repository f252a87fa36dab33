"""What the tests of cursor capture share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.extract import mariadb_server
from tests.extract.mariadb_server import MariadbServer


@pytest.fixture
def mariadb_url(mariadb: MariadbServer) -> Iterator[str]:
    """An empty database."""
    with mariadb_server.database(mariadb, tables="") as url:
        yield url
