"""Reading PostgreSQL's log, on two real servers: what cannot be asked of every capture mode."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from local.servers.postgres import PostgresServer
from pipelines.extract.databases.postgres import copy
from pipelines.extract.wal import extraction
from pipelines.shared.errors import SourceUnavailable
from tests.extract.wal.wal_shop import WalShop, captured

pytestmark = pytest.mark.services


@pytest.fixture(params=["logical_postgres", "debian_postgres"])
def server(request: pytest.FixtureRequest) -> PostgresServer:
    found: PostgresServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def shop(server: PostgresServer, tmp_path: Path) -> Iterator[WalShop]:
    with captured(server, tmp_path) as made:
        yield made


def put(*skus: str) -> str:
    rows = ", ".join(f"('{sku}', 'tea', NULL, 1.00)" for sku in skus)
    return f"INSERT INTO web.articles VALUES {rows}"


def test_the_size_of_a_batch_changes_nothing(
    shop: WalShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, start = shop.take()
    for number in range(6):
        shop.run(
            put(*(f"{number} {n}" for n in range(7))),
            "DELETE FROM web.articles WHERE sku LIKE '% 3'",
        )
    end = shop.now()
    whole, _ = shop.take(end, start)
    assert whole.num_rows == 48
    monkeypatch.setattr(copy, "BATCH", 3)
    monkeypatch.setattr(extraction, "STEP", 10)
    pieces, _ = shop.take(end, start)
    assert pieces.equals(whole)


def test_an_end_that_the_server_has_not_reached_is_refused(shop: WalShop) -> None:
    _, position = shop.take()
    with pytest.raises(SourceUnavailable, match="has not reached"):
        shop.take(shop.now() + timedelta(hours=1), position)
