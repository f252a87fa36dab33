"""A database of its own in a private PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url

from local.servers.postgres import PostgresServer


@contextmanager
def database(server: PostgresServer, tables: str) -> Iterator[str]:
    """A database with the given tables; yields its URL and drops it in the end."""
    name = f"shop_{uuid.uuid4().hex[:12]}"
    with server.connect("postgres") as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = server.url(name)
    try:
        with connect(url) as connection:
            connection.execute(tables)
        yield url
    finally:
        with server.connect("postgres") as connection:
            # A reader of a log that was just cut off may hold its slot for another moment.
            reading = "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots"
            connection.execute(f"{reading} WHERE active AND database = %s", [name])
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def connect(url: str) -> Any:
    """An autocommit connection."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)
