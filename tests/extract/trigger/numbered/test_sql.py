"""The SQL that is installed in a shop: where it changes, every shop has to install again."""

from __future__ import annotations

import hashlib

import pytest

from pipelines.extract.trigger.numbered.mariadb.sql import MariadbTable
from pipelines.extract.trigger.numbered.sqlite.sql import SqliteTable
from pipelines.shared.errors import DeclarationError
from tests.extract.postgres_shop import tiny
from tests.extract.trigger.trigger_shop import only

GOODS = {
    "key": ["id", "sku"],
    "columns": {"id": "int64", "sku": "string", "secret": "string", "at": "timestamp"},
    "commit_time": "at",
    "personal": {"secret": "drop"},
}
SHOP = only(tiny(), "goods", GOODS)
TEXT = ("varchar(40)", "utf8mb4", "utf8mb4_bin", "varchar")
KINDS = {
    "id": ("bigint(20)", None, None, "bigint"),
    "sku": TEXT,
    "secret": TEXT,
    "at": ("timestamp(6)", None, None, "timestamp"),
}


@pytest.mark.parametrize(
    ("table", "digest"),
    [
        (MariadbTable(SHOP, "goods", KINDS, mariadb=True), "2d01183a153c3277"),
        (MariadbTable(SHOP, "goods", KINDS, mariadb=False), "c4724e984e1595f3"),
        (SqliteTable(SHOP, "goods", (("id", "sku"), ("sku",))), "e39a605c184442f1"),
    ],
    ids=["mariadb", "mysql", "sqlite"],
)
def test_what_is_installed_stays_the_same(table: MariadbTable | SqliteTable, digest: str) -> None:
    assert "secret" not in table.definition
    assert hashlib.sha256(table.definition.encode()).hexdigest()[:16] == digest


def test_a_name_too_long_for_the_databases_is_named() -> None:
    with pytest.raises(DeclarationError, match=r"freshrank_tiny_changes_g+ has more than 64"):
        SqliteTable(SHOP, "g" * 60, ())
