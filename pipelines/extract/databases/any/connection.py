"""One read-only transaction on any database that SQLAlchemy knows; its errors in Freshrank's words.

PostgreSQL and MySQL/MariaDB: REPEATABLE READ, READ ONLY. SQLite: the file opened for reading only,
one deferred transaction. Others: REPEATABLE READ, or else SERIALIZABLE, where they have it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from pipelines.shared.errors import CaptureMissing, SettingsError, SourceUnavailable

_DENIED = ("permission denied", "command denied", "not authorized", "InsufficientPrivilege")


@contextmanager
def connect(url: str) -> Iterator[tuple[sa.Connection, sa.URL]]:
    """A transaction that sees one state of the database and cannot write; and its address.

    Raises:
        SettingsError: the URL is none, or its driver is not installed.
        SourceUnavailable: the database does not answer.
        CaptureMissing: the account may not read.
    """
    engine, address = _engine(url)
    try:
        with engine.connect() as connection:
            _begin(connection)
            yield connection, address
    except sa.exc.DBAPIError as error:
        raise translated(error.orig or error, address) from error
    finally:
        engine.dispose()


def translated(error: BaseException, address: sa.URL) -> Exception:
    """A driver's error as one of Freshrank's."""
    where = address.set(query={}).render_as_string(hide_password=True)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if any(sign in f"{type(error).__name__} {first}" for sign in _DENIED):
        return CaptureMissing(
            f"the account of {where} lacks a right ({first}); grant it SELECT on the declared "
            "tables, nothing more is needed"
        )
    known = isinstance(error, sqlite3.Error) or "OperationalError" in type(error).__name__
    return SourceUnavailable(
        f"the shop's database {where} {'does not answer' if known else 'gave up'} ({first}); "
        "start it or mend the connection, then run again"
    )


def _engine(url: str) -> tuple[sa.Engine, sa.URL]:
    try:
        address = sa.make_url(url)
        if address.get_backend_name() == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
        opened = address
        if address.get_backend_name() == "sqlite" and address.database not in (None, ":memory:"):
            database = f"file:{quote(str(address.database))}"
            opened = address.set(database=database, query={"mode": "ro", "uri": "true"})
        return sa.create_engine(opened, poolclass=sa.NullPool), address
    except (sa.exc.ArgumentError, ImportError) as error:
        raise SettingsError(
            f"the connection of the shop's database cannot be used ({error}); write it as an "
            "SQLAlchemy URL, such as mysql+pymysql://user:password@host:3306/database, and "
            "install the driver that it names"
        ) from None


def _begin(connection: sa.Connection) -> None:
    dialect = connection.dialect.name
    if dialect == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
        return
    levels = connection.dialect.get_isolation_level_values(connection.connection.dbapi_connection)  # type: ignore[arg-type]
    level = next((each for each in ("REPEATABLE READ", "SERIALIZABLE") if each in levels), None)
    connection.rollback()
    options: dict[str, Any] = {"isolation_level": level} if level else {}
    if dialect == "postgresql":
        options["postgresql_readonly"] = True
    connection.execution_options(**options)
    if dialect in ("mysql", "mariadb"):
        connection.exec_driver_sql("SET time_zone = '+00:00'")
        connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    if dialect == "postgresql":
        connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")
