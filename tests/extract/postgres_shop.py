"""The tiny shop in a PostgreSQL database of its own, and a writer for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.servers import postgres
from local.servers.postgres import PostgresServer
from pipelines.shared.declaration import Shop, load_shop

DECLARED = Path(__file__).parents[1] / "declared"
TABLES = """
    CREATE SCHEMA web;
    CREATE TABLE web.users (uid text PRIMARY KEY, email text, city text);
    CREATE TABLE web.articles (sku text PRIMARY KEY, kind text, maker text, amount numeric(10, 2));
    CREATE TABLE web.shown (list_id text, sku text, uid text, place integer, shown_at timestamptz,
                            PRIMARY KEY (list_id, sku));
    CREATE TABLE web.actions (action_id text PRIMARY KEY, type text, uid text, sku text,
                              at timestamptz, pieces integer, paid numeric(10, 2));
"""


def tiny() -> Shop:
    return load_shop("tiny", DECLARED)


def database(server: PostgresServer, tables: str = TABLES) -> AbstractContextManager[str]:
    """A database with the given tables; yields its URL and drops it in the end."""
    return postgres.database(server, tables)


class PostgresTransaction:
    """Writes of one open transaction, stamped with a time."""

    def __init__(self, url: str, shop: Shop, at: str) -> None:
        self._shop = shop
        self._connection = postgres.connect(url)
        self._connection.autocommit = False
        self._connection.execute("SELECT set_config('freshrank.clock', %s, true)", [at + "+00"])

    def insert(self, table: str, row: dict[str, Any]) -> None:
        holes = ", ".join(["%s"] * len(row))
        self._run(f"INSERT INTO web.{table} ({', '.join(row)}) VALUES ({holes})", row.values())

    def update(self, table: str, row: dict[str, Any]) -> None:
        values = ", ".join(f"{name} = %s" for name in row)
        where, key = self._where(table, row)
        self._run(f"UPDATE web.{table} SET {values} WHERE {where}", [*row.values(), *key])

    def delete(self, table: str, row: dict[str, Any]) -> None:
        where, key = self._where(table, row)
        self._run(f"DELETE FROM web.{table} WHERE {where}", key)

    def commit(self) -> None:
        self._connection.commit()
        self._connection.close()

    def rollback(self) -> None:
        self._connection.rollback()
        self._connection.close()

    def _where(self, table: str, row: dict[str, Any]) -> tuple[str, list[Any]]:
        key = self._shop.tables[table].key
        return " AND ".join(f"{name} = %s" for name in key), [row[name] for name in key]

    def _run(self, statement: str, values: Any) -> None:
        self._connection.execute(statement, list(values))
