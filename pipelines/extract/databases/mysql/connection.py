"""Connections to a MySQL or MariaDB server; its errors in Freshrank's words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pymysql
import sqlalchemy as sa

from pipelines.shared.errors import CaptureMissing, SettingsError, SourceUnavailable

RIGHTS = {
    "binlog": (
        "as an administrator run "
        "`GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO <account>` "
        "(SELECT is needed on the declared tables only; MariaDB may name the last right "
        "BINLOG MONITOR; MySQL also needs RELOAD)"
    ),
    "trigger": (
        "to install, it needs CREATE, ALTER, DROP, TRIGGER, SELECT, INSERT, UPDATE, DELETE and "
        "LOCK TABLES on the database and, where the server writes a binlog, `SET GLOBAL "
        "log_bin_trust_function_creators = 1`; to extract, SELECT and TRIGGER on the database "
        "(MySQL: also UPDATE on its table freshrank_<shop>_gates); both need PROCESS; to delete "
        "what was extracted (`retention.captured_days`), also DELETE on its tables "
        "freshrank_<shop>_*"
    ),
}
"""The rights that each capture mode needs."""
_NO_RIGHT = {1044, 1142, 1143, 1227, 1370, 1419}


def options(url: str, capture: str) -> dict[str, Any]:
    """What pymysql needs to connect; the message names the capture mode.

    Raises:
        SettingsError: the URL is not one of MySQL or MariaDB.
    """
    try:
        address = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise SettingsError(
            "the connection's URL cannot be read; write it as "
            "mysql+pymysql://user:password@host:3306/database"
        ) from None
    if address.get_backend_name() not in ("mysql", "mariadb"):
        raise SettingsError(
            f"{where(url)} is not a MySQL or MariaDB database, but the shop declares "
            f"`capture: {capture}`; give the connection a URL that begins with mysql+pymysql://"
        )
    _, arguments = (
        address.set(drivername="mysql+pymysql").get_dialect()().create_connect_args(address)
    )
    return {**arguments, "charset": "utf8mb4", "connect_timeout": 10}


@contextmanager
def translate_errors(url: str, capture: str) -> Iterator[None]:
    """Turn the driver's errors into Freshrank's; the capture mode says what rights are needed.

    Raises:
        SourceUnavailable: the server cannot be reached, or cut the connection.
        CaptureMissing: the account lacks a right.
    """
    try:
        yield
    except pymysql.MySQLError as error:
        code = error.args[0] if error.args else 0
        text = str(error.args[-1]) if error.args else type(error).__name__
        if code in _NO_RIGHT:
            raise CaptureMissing(
                f"the account of {where(url)} lacks a right ({text}); {RIGHTS[capture]}"
            ) from error
        if isinstance(error, pymysql.ProgrammingError):
            raise
        raise SourceUnavailable(
            f"the shop's database {where(url)} does not answer ({text}); "
            "start it or mend the connection, then run again"
        ) from error


@contextmanager
def connect(url: str, capture: str, *, stream: bool = False) -> Iterator[Any]:
    """An autocommit connection that speaks UTC; with `stream`, rows stay at the server until read.

    Raises:
        SettingsError, SourceUnavailable, CaptureMissing: see `options` and `translate_errors`.
    """
    kind = pymysql.cursors.SSCursor if stream else pymysql.cursors.Cursor
    session = "SET time_zone = '+00:00', sql_mode = '', net_write_timeout = 3600"
    with translate_errors(url, capture):
        connection = pymysql.connect(
            **options(url, capture), autocommit=True, cursorclass=kind, init_command=session
        )
        try:
            yield connection
        finally:
            connection.close()


def rows(connection: Any, statement: str, bound: Any = ()) -> list[tuple[Any, ...]]:
    """The rows of a small answer."""
    with connection.cursor() as cursor:
        cursor.execute(statement, bound)
        return list(cursor.fetchall())


def now(connection: Any) -> datetime:
    """The server's time."""
    moment: datetime = rows(connection, "SELECT UTC_TIMESTAMP(6)")[0][0]
    return moment.replace(tzinfo=UTC)


def is_mariadb(connection: Any) -> bool:
    """Whether the server is MariaDB rather than MySQL."""
    return "mariadb" in connection.get_server_info().lower()


def variables(connection: Any, names: Sequence[str]) -> dict[str, str]:
    """Those of some global variables that the server knows."""
    wanted = ", ".join(["%s"] * len(names))
    statement = f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({wanted})"
    return {str(name): str(value) for name, value in rows(connection, statement, names)}


def where(url: str) -> str:
    """The server's address without its secrets, for messages."""
    return sa.make_url(url).set(query={}).render_as_string(hide_password=True)
