"""Installs trigger capture in a shop's SQLite file and removes it."""

from __future__ import annotations

import uuid
from datetime import datetime

from pipelines.extract.source import microseconds
from pipelines.extract.trigger.numbered.source import captured, require_declared, require_order
from pipelines.extract.trigger.numbered.sql import LogNames, housekeeping, prefix, quoted
from pipelines.extract.trigger.numbered.sqlite.session import SqliteSession, writing
from pipelines.extract.trigger.numbered.sqlite.sql import HOUSEKEEPING, TRIGGERS, SqliteTable
from pipelines.shared.columns import CHANGE_COLUMNS
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Capture the changes of every declared table; see `modes.install`.

    One transaction, so that nobody writes meanwhile and nothing is left half installed. A table
    that is captured as declared is left alone; one whose capture was damaged catches up.

    Raises:
        CaptureMissing: triggers cannot see every change of a table, `at` lies before changes
            already captured, or the file may not be written.
    """
    with writing(url) as session:
        require_declared(session, shop)
        session.rows("BEGIN IMMEDIATE")
        for name, columns in HOUSEKEEPING.items():
            session.rows(f"CREATE TABLE IF NOT EXISTS {housekeeping(shop, name)} ({columns})")
        for table in captured(session, shop) - set(shop.tables):
            _drop(session, shop, table)
        due = [table for table in sorted(shop.tables) if session.fault(shop, table)]
        clock = at or session.now(shop)
        for table in due:
            _capture(session, session.log(shop, table), clock, at)
        session.rows("COMMIT")
    return due


def remove(url: str, shop: Shop) -> None:
    """Remove every trigger and captured change from the shop's database."""
    with writing(url) as session:
        session.rows("BEGIN IMMEDIATE")
        for table in captured(session, shop) | set(shop.tables):
            _drop(session, shop, table)
        for name in HOUSEKEEPING:
            session.rows(f"DROP TABLE IF EXISTS {housekeeping(shop, name)}")
        session.rows("COMMIT")


def _capture(
    session: SqliteSession, log: SqliteTable, clock: datetime, at: datetime | None
) -> None:
    for statement in [*log.drop(), *log.create_changes()]:
        session.rows(statement)
    _fit_columns(session, log)
    require_order(session, log, at)
    for statement in log.create_triggers():
        session.rows(statement)
    moment = microseconds(clock)
    for statement in log.catch_up(moment, str(moment)):
        session.rows(statement)
    session.rows(
        f"INSERT INTO {housekeeping(log.shop, 'captures')} VALUES (?, ?, ?) "
        "ON CONFLICT (table_name) DO UPDATE SET definition = excluded.definition",
        (log.table, str(uuid.uuid4()), log.definition),
    )
    if fault := session.fault(log.shop, log.table):
        raise CaptureMissing(fault)


def _fit_columns(session: SqliteSession, log: SqliteTable) -> None:
    """Give the table of changes the columns that are stored now; SQLite rewrites it for that."""
    changes = log.changes.strip("`")
    names = [name for (name,) in session.rows("SELECT name FROM pragma_table_info(?)", (changes,))]
    if names[len(CHANGE_COLUMNS) :] == log.stored:
        return
    kept = ", ".join(quoted(n) for n in names if n in {*CHANGE_COLUMNS, *log.stored})
    old = quoted(f"{changes}_old")
    session.rows(f"ALTER TABLE {log.changes} RENAME TO {old}")
    session.rows(f"DROP INDEX {quoted(f'{changes}_at')}")
    for statement in log.create_changes():
        session.rows(statement)
    session.rows(f"INSERT INTO {log.changes} ({kept}) SELECT {kept} FROM {old}")
    session.rows(f"DROP TABLE {old}")


def _drop(session: SqliteSession, shop: Shop, table: str) -> None:
    """Remove what was captured of a table, which may be declared no longer."""
    names = LogNames(shop, table)
    for event in TRIGGERS:
        session.rows(f"DROP TRIGGER IF EXISTS {quoted(names.trigger(event))}")
    for kind in ("changes", "replaced"):
        session.rows(f"DROP TABLE IF EXISTS {quoted(f'{prefix(shop)}{kind}_{table}')}")
    if f"{prefix(shop)}captures" in session.tables(shop):
        session.rows(f"DELETE FROM {housekeeping(shop, 'captures')} WHERE table_name = ?", (table,))
