"""Checks that a server's binlog holds every change; nothing is added to the shop's database."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipelines.extract.binlog.stream import created, log_files, status
from pipelines.extract.databases.mysql.catalogue import drift
from pipelines.extract.databases.mysql.connection import connect, rows, variables, where
from pipelines.extract.source import Position
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift

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
"""Variable → seconds of its unit."""


def faults(connection: Any, schema: str) -> list[str]:
    """Every setting of the server with which changes would be missed, with the line to set.

    Raises:
        pymysql.MySQLError: a right is missing; see `translate_errors`.
    """
    expected = {**REQUIRED, **FORBIDDEN}
    known = variables(connection, list(expected))
    findings = []
    for name, wanted in expected.items():
        value = known.get(name, None if name in REQUIRED else wanted)
        if value != wanted:
            line = "log_bin = binlog" if name == "log_bin" else f"{name} = {wanted}"
            findings.append(
                f"the server has {name} = {value}, the binlog mode needs {wanted or 'it empty'}; "
                f"write `{line}` under [mysqld] in its my.cnf and restart it"
            )
    if known.get("log_bin") == "ON":
        _, only, without = status(connection)
        if (only and schema not in only.split(",")) or schema in without.split(","):
            findings.append(
                f"the server keeps {schema} out of its binlog (binlog_do_db or "
                "binlog_ignore_db); take the line out of its my.cnf and restart it"
            )
    return findings


def check(url: str, shop: Shop) -> list[str]:
    """What is wrong with server and tables, each with the way out.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    with connect(url, "binlog") as connection:
        findings = faults(connection, shop.source.schema_name)
        if not findings:
            _require_dump(url, connection)
            findings += _short_expiry(connection, shop)
        for table in sorted(shop.tables):
            findings += drift(connection, shop, table)
    return findings


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Make sure that changes can be captured; see `modes.install`.

    Raises:
        CaptureMissing: a setting of the server or a right is missing.
    """
    del at  # The log carries its own times.
    with connect(url, "binlog") as connection:
        if wrong := faults(connection, shop.source.schema_name):
            raise CaptureMissing("; ".join(wrong))
        _require_dump(url, connection)
        drifts = [each for table in sorted(shop.tables) for each in drift(connection, shop, table)]
        if drifts:
            raise SchemaDrift("; ".join(drifts))
    return []


def remove(url: str, shop: Shop) -> None:
    """Nothing to do, and says so: the binlog mode leaves nothing in the shop's database."""
    _LOG.warning(
        "nothing to remove from %s: the binlog mode added nothing to %s", where(url), shop.title
    )


def pending_bytes(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """How many bytes of the binlog lie behind each table's position, where it has one.

    Raises:
        CaptureMissing, SourceUnavailable: see `translate_errors`.
    """
    with connect(url, "binlog") as connection:
        sizes = {str(row[0]): int(row[1]) for row in rows(connection, "SHOW BINARY LOGS")}
    files, pending = list(sizes), {}
    for table in shop.tables:
        position = positions.get(table, {})
        if (file := position.get("file")) in sizes:
            behind = files[files.index(file) :]
            pending[table] = sum(sizes[each] for each in behind) - int(position["offset"])
    return pending


def _require_dump(url: str, connection: Any) -> None:
    """Read the log's first event, which needs the right to replicate."""
    created(url, log_files(connection)[-1])


def _short_expiry(connection: Any, shop: Shop) -> list[str]:
    """The finding that log files go before the next extraction can have read them."""
    known = variables(connection, list(_EXPIRY))
    seconds = {name: float(known.get(name, 0)) * unit for name, unit in _EXPIRY.items()}
    kept = min((value for value in seconds.values() if value), default=None)
    needed = shop.interval.days * 86_400
    if kept is None or kept >= needed:
        return []
    return [
        f"the server deletes binlog files after {kept / 86_400:g} days, but the shop's interval "
        f"is {shop.interval.days} days; write `expire_logs_days = {2 * shop.interval.days}` "
        f"(MySQL: `binlog_expire_logs_seconds = {2 * needed}`) under [mysqld] in its my.cnf and "
        "restart it"
    ]
