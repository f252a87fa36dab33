"""A MySQL or MariaDB server as the binlog mode needs it: connections, settings, rights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pymysql
import sqlalchemy as sa

from pipelines.extract.databases.mysql import catalogue
from pipelines.extract.source import Position
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import (
    CaptureMissing,
    SchemaDrift,
    SettingsError,
    SourceUnavailable,
)

_LOG = logging.getLogger(__name__)

REQUIRED = {
    "log_bin": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
}
FORBIDDEN = {
    "log_bin_compress": "OFF",
    "binlog_transaction_compression": "OFF",
    "binlog_row_value_options": "",
}
"""Not every server has these; where one is on, changes come in a form that cannot be read."""

_EXPIRY = {"binlog_expire_logs_seconds": 1, "expire_logs_days": 86_400}
_NO_RIGHT = {1044, 1142, 1143, 1227, 1370, 1419}
_LOG_GONE = 1236


RIGHTS = (
    "as an administrator run "
    "`GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO <account>` "
    "(SELECT is needed on the declared tables only; MariaDB may name the last right "
    "BINLOG MONITOR; MySQL also needs RELOAD)"
)
"""What the binlog mode asks of an administrator."""


def options(url: str, capture: str = "binlog") -> dict[str, Any]:
    """What pymysql needs to connect.

    Args:
        url: SQLAlchemy URL.
        capture: how changes are captured, for the messages.

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
            f"{_where(url)} is not a MySQL or MariaDB database, but the shop declares "
            f"`capture: {capture}`; give the connection a URL that begins with mysql+pymysql://"
        )
    _, given = address.set(drivername="mysql+pymysql").get_dialect()().create_connect_args(address)
    return {**given, "charset": "utf8mb4", "connect_timeout": 10}


@contextmanager
def told(url: str, rights: str = RIGHTS) -> Iterator[None]:
    """Turns the driver's errors into Freshrank's.

    Args:
        url: SQLAlchemy URL of the server.
        rights: what to do where a right is missing.

    Raises:
        SourceUnavailable: the server cannot be reached, or cut the connection.
        CaptureMissing: the account lacks a right, or a log file is gone.
    """
    try:
        yield
    except pymysql.MySQLError as error:
        code = error.args[0] if error.args else 0
        text = str(error.args[-1]) if error.args else type(error).__name__
        if code in _NO_RIGHT:
            raise CaptureMissing(
                f"the account of {_where(url)} lacks a right ({text}); {rights}"
            ) from error
        if code == _LOG_GONE:
            raise CaptureMissing(
                f"{_where(url)} no longer has the part of its binlog that is needed ({text}); "
                f"{ANEW}"
            ) from error
        if isinstance(error, pymysql.ProgrammingError):
            raise
        raise SourceUnavailable(
            f"the shop's database {_where(url)} does not answer ({text}); "
            "start it or mend the connection, then run again"
        ) from error


ANEW = (
    "raise `snapshot` of its source in the shop's shop.yaml by one: the next extraction takes "
    "every table of it anew"
)
"""The way out where the log cannot lead on from the last position."""


@contextmanager
def connect(
    url: str, *, stream: bool = False, capture: str = "binlog", rights: str = RIGHTS
) -> Iterator[Any]:
    """An autocommit connection that speaks UTC; with `stream`, rows stay at the server until read.

    Args:
        url: SQLAlchemy URL of the server.
        stream: whether rows are read as they come.
        capture: how changes are captured, for the messages.
        rights: what to do where a right is missing.

    Raises:
        SettingsError, SourceUnavailable, CaptureMissing: see `options` and `told`.
    """
    kind = pymysql.cursors.SSCursor if stream else pymysql.cursors.Cursor
    session = "SET time_zone = '+00:00', sql_mode = '', net_write_timeout = 3600"
    with told(url, rights):
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


def is_mariadb(connection: Any) -> bool:
    """Whether the server is MariaDB rather than MySQL."""
    return "mariadb" in connection.get_server_info().lower()


def identity(connection: Any) -> str:
    """What tells this server from another: its UUID, in MariaDB its server id."""
    known = variables(connection)
    return str(known.get("server_uuid") or known["server_id"])


def log_end(connection: Any) -> tuple[str, int]:
    """File and offset where the binlog ends now, always between two transactions."""
    return _status(connection)[:2]


def log_files(connection: Any) -> list[str]:
    """The binlog files that the server still has, oldest first."""
    return [str(row[0]) for row in rows(connection, "SHOW BINARY LOGS")]


def variables(connection: Any) -> dict[str, str]:
    """The global variables that matter here and that the server knows."""
    names = [*REQUIRED, *FORBIDDEN, *_EXPIRY, "server_id", "server_uuid"]
    wanted = ", ".join(["%s"] * len(names))
    found = rows(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({wanted})", names)
    return {str(name): str(value) for name, value in found}


def faults(connection: Any, schema: str) -> list[str]:
    """Every setting of the server with which changes would be missed, with the line to set.

    Raises:
        pymysql.MySQLError: a right is missing; see `told`.
    """
    known = variables(connection)
    found = []
    for name, wanted in {**REQUIRED, **FORBIDDEN}.items():
        value = known.get(name, None if name in REQUIRED else wanted)
        if value != wanted:
            line = "log_bin = binlog" if name == "log_bin" else f"{name} = {wanted}"
            found.append(
                f"the server has {name} = {value}, the binlog mode needs {wanted or 'it empty'}; "
                f"write `{line}` under [mysqld] in its my.cnf and restart it"
            )
    if known.get("log_bin") == "ON":
        _, _, only, without = _status(connection)
        if (only and schema not in only.split(",")) or schema in without.split(","):
            found.append(
                f"the server keeps {schema} out of its binlog (binlog_do_db or "
                "binlog_ignore_db); take the line out of its my.cnf and restart it"
            )
    return found


def check(url: str, shop: Shop) -> list[str]:
    """What is wrong with server and tables, each with the way out.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    with connect(url) as connection:
        findings = faults(connection, shop.source.schema_name)
        if not findings:
            _require_dump(url, connection)
            findings += _short_expiry(connection, shop)
        for table in sorted(shop.tables):
            findings += catalogue.drift(connection, shop, table)
    return findings


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Make sure that changes can be captured; nothing is added to the shop's database.

    Args:
        url: SQLAlchemy URL of the shop's database.
        shop: its declaration.
        at: of no use here: the log carries its own times.

    Returns:
        No table: the server's log captures every one of them already.

    Raises:
        CaptureMissing: a setting of the server or a right is missing.
        SchemaDrift: a table is not as declared.
        SourceUnavailable: the database does not answer.
    """
    del at
    with connect(url) as connection:
        if wrong := faults(connection, shop.source.schema_name):
            raise CaptureMissing("; ".join(wrong))
        _require_dump(url, connection)
        found = (catalogue.drift(connection, shop, table) for table in sorted(shop.tables))
        if drifted := [fault for each in found for fault in each]:
            raise SchemaDrift("; ".join(drifted))
    return []


def remove(url: str, shop: Shop) -> None:
    """Nothing to do, and says so: the binlog mode leaves nothing in the shop's database."""
    _LOG.warning(
        "nothing to remove from %s: the binlog mode added nothing to %s", _where(url), shop.title
    )


def pending_bytes(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """How many bytes of the binlog lie behind each table's position, where it has one.

    Raises:
        CaptureMissing, SourceUnavailable: see `told`.
    """
    with connect(url) as connection:
        sizes = {str(row[0]): int(row[1]) for row in rows(connection, "SHOW BINARY LOGS")}
    files, found = list(sizes), {}
    for table in shop.tables:
        position = positions.get(table, {})
        if (file := position.get("file")) in sizes:
            behind = files[files.index(file) :]
            found[table] = sum(sizes[each] for each in behind) - int(position["offset"])
    return found


def _require_dump(url: str, connection: Any) -> None:
    """Read the log's first event, which needs the right to replicate."""
    from pipelines.extract.binlog.stream import created

    created(url, log_files(connection)[-1])


def _short_expiry(connection: Any, shop: Shop) -> list[str]:
    """The finding that log files go before the next extraction can have read them."""
    known = variables(connection)
    given = {name: float(known.get(name, 0)) * unit for name, unit in _EXPIRY.items()}
    kept = min((value for value in given.values() if value), default=None)
    needed = shop.interval.days * 86_400
    if kept is None or kept >= needed:
        return []
    return [
        f"the server deletes binlog files after {kept / 86_400:g} days, but the shop's interval "
        f"is {shop.interval.days} days; write `expire_logs_days = {2 * shop.interval.days}` "
        f"(MySQL: `binlog_expire_logs_seconds = {2 * needed}`) under [mysqld] in its my.cnf and "
        "restart it"
    ]


def _status(connection: Any) -> tuple[str, int, str, str]:
    statement = "SHOW MASTER STATUS"
    version = connection.get_server_info().split(".")
    if not is_mariadb(connection) and (int(version[0]), int(version[1])) >= (8, 2):
        statement = "SHOW BINARY LOG STATUS"
    row = rows(connection, statement)[0]
    return str(row[0]), int(row[1]), str(row[2] or ""), str(row[3] or "")


def _where(url: str) -> str:
    return sa.make_url(url).set(query={}).render_as_string(hide_password=True)
