"""Installs trigger capture in a shop's MariaDB or MySQL database and removes it."""

from __future__ import annotations

import uuid
from datetime import datetime

from pipelines.extract.source import microseconds
from pipelines.extract.trigger.numbered.mariadb.session import MariadbSession, opened
from pipelines.extract.trigger.numbered.mariadb.sql import (
    EVENTS,
    GATES,
    HOUSEKEEPING,
    MariadbTable,
)
from pipelines.extract.trigger.numbered.source import captured, require_declared, require_order
from pipelines.extract.trigger.numbered.sql import LogNames, housekeeping, prefix, quoted
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SourceUnavailable

LOCK_TIMEOUT_S = 30
"""How long installing waits for a busy table: behind it, the shop's own writers queue."""


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Capture the changes of every declared table; see `modes.install`.

    While the rows are copied, the tables can be read and not written to: no row is lost or doubled
    between them and the first change. A table that is captured as declared is left alone; one
    whose capture was damaged catches up.

    Raises:
        CaptureMissing: triggers cannot see every change of a table, `at` lies before changes
            already captured, or a right is missing.
        SourceUnavailable: another session installs or removes capture.
    """
    with opened(url) as session:
        require_declared(session, shop)
        if unfit := [why for table in sorted(shop.tables) if (why := session.unfit(shop, table))]:
            raise CaptureMissing("; ".join(unfit))
        session.rows(f"USE {quoted(shop.source.schema_name)}")
        session.rows(f"SET lock_wait_timeout = {LOCK_TIMEOUT_S}, sql_mode = 'STRICT_ALL_TABLES'")
        _require_alone(session, shop)
        for name, columns in HOUSEKEEPING.items():
            session.rows(
                f"CREATE TABLE IF NOT EXISTS {housekeeping(shop, name)} ({columns}) "
                "ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4"
            )
        slots = ", ".join(f"({slot})" for slot in range(GATES))
        session.rows(f"INSERT IGNORE INTO {housekeeping(shop, 'gates')} VALUES {slots}")
        tables = captured(session, shop)
        for table in tables - set(shop.tables):
            _forget(session, shop, table)
        due = [
            session.log(shop, table) for table in sorted(shop.tables) if session.fault(shop, table)
        ]
        for log in due:
            _prepare(session, log, at if log.table in tables else None)
        if due:
            _fill(session, due, tables, at)
    return [log.table for log in due]


def _require_alone(session: MariadbSession, shop: Shop) -> None:
    """Hold the shop's lock until the session ends."""
    ((given,),) = session.rows("SELECT GET_LOCK(%s, %s)", (prefix(shop), LOCK_TIMEOUT_S))
    if given != 1:
        why = "an error" if given is None else f"no lock within {LOCK_TIMEOUT_S} s"
        raise SourceUnavailable(
            f"{shop.shop}: GET_LOCK('{prefix(shop)}') gave {why}: another session installs or "
            "removes capture; run again when it is done, or end that session at the server"
        )


def remove(url: str, shop: Shop) -> None:
    """Remove every trigger and captured change from the shop's database."""
    with opened(url) as session:
        session.rows(f"USE {quoted(shop.source.schema_name)}")
        session.rows(f"SET lock_wait_timeout = {LOCK_TIMEOUT_S}")
        _require_alone(session, shop)
        for table in captured(session, shop) | set(shop.tables):
            _drop(session, LogNames(shop, table))
        for name in HOUSEKEEPING:
            session.rows(f"DROP TABLE IF EXISTS {housekeeping(shop, name)}")


def _forget(session: MariadbSession, shop: Shop, table: str) -> None:
    """Remove what was captured of a table that is no longer declared."""
    _drop(session, LogNames(shop, table))
    for kept in ("captures", "faults"):
        session.rows(f"DELETE FROM {housekeeping(shop, kept)} WHERE table_name = %s", (table,))


def _drop(session: MariadbSession, names: LogNames) -> None:
    for event in EVENTS:
        session.rows(f"DROP TRIGGER IF EXISTS {quoted(names.trigger(event))}")
    session.rows(f"DROP TABLE IF EXISTS {names.changes}")


def _prepare(session: MariadbSession, log: MariadbTable, at: datetime | None) -> None:
    """Table of changes and triggers; DDL cannot be rolled back, but nobody reads them yet."""
    session.rows(log.create_changes())
    if step := log.fit_columns(session.kinds(log.shop, log.changes.strip("`"))):
        session.rows(step)
    require_order(session, log, at)
    for event, statement in zip(EVENTS, log.create_triggers(), strict=True):
        session.rows(f"DROP TRIGGER IF EXISTS {quoted(log.trigger(event))}")
        session.rows(statement)


def _fill(
    session: MariadbSession, due: list[MariadbTable], before: set[str], at: datetime | None
) -> None:
    """Write the rows present, or what tables captured before missed, while nobody else writes."""
    shop = due[0].shop
    clock = microseconds(at or session.now(shop))
    kept = [housekeeping(shop, name) for name in ("captures", "faults")]
    locks = [f"{name} WRITE" for name in kept]
    for log in due:
        row, *twice = log.aliases
        locks += [f"{log.source} AS {row} READ", f"{log.changes} WRITE"]
        locks += [f"{log.changes} AS {alias} READ" for alias in twice]
    stamps = [(log, session.identity(shop, log.table)) for log in due]
    session.rows("SET autocommit = 0")
    session.rows(f"LOCK TABLES {', '.join(locks)}")
    for log, identity in stamps:
        if log.table not in before:
            # Triggers wrote these before the lock; the rows present hold them already.
            session.rows(f"DELETE FROM {log.changes}")
        session.rows("SET @freshrank_tx = UUID_SHORT() & 9223372036854775807")
        for statement in log.catch_up(clock, "@freshrank_tx"):
            session.rows(statement)
        session.rows(f"DELETE FROM {kept[1]} WHERE table_name = %s", (log.table,))
        session.rows(
            f"INSERT INTO {kept[0]} (table_name, log, identity, definition) "
            "VALUES (%s, %s, %s, %s) ON DUPLICATE KEY UPDATE identity = %s, definition = %s",
            (log.table, str(uuid.uuid4()), identity, log.definition, identity, log.definition),
        )
    session.rows("COMMIT")
    session.rows("UNLOCK TABLES")
