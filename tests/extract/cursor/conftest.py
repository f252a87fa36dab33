"""What the tests of cursor capture share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.servers import mariadb as mariadb_server
from benchmarks.servers.mariadb import MariadbServer


@pytest.fixture
def mariadb_url(mariadb: MariadbServer) -> Iterator[str]:
    """An empty database."""
    with mariadb_server.database(mariadb, tables="") as url:
        yield url
