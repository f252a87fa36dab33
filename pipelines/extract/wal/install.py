"""Installs WAL capture in a shop's PostgreSQL database, checks it and removes it; see `slot`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from pipelines.extract.databases.postgres.catalogue import drifts
from pipelines.extract.source import INSTALL
from pipelines.extract.wal import slot as slots
from pipelines.extract.wal.slot import Capture, Log, open_database, publication, table_state
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift, SettingsError, SourceUnavailable

HELD_LIMIT = 4 << 30
"""Bytes of log that the slot may hold back before `check` reports it."""

LOCK_TIMEOUT = "30s"
"""How long installing waits: for a busy table (behind it, the shop's own writers queue), and
for open transactions to end before the slot begins."""


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Capture the changes of every declared table from now on.

    Tables get REPLICA IDENTITY FULL, so that the log carries whole old rows. A table that is
    captured as declared is left alone. The rows present are read by the first extraction. See
    `modes.install`.

    Raises:
        SchemaDrift: a table is not as declared; nothing was installed.
        SettingsError: the server writes no logical log.
        CaptureMissing: a right is missing, or a table cannot be captured.
        SourceUnavailable: the database does not answer, or something stayed busy.
    """
    with open_database(url) as connection:
        _require_logical(connection)
        if faults := drifts(connection, shop):
            raise SchemaDrift("; ".join(faults))
        _wait_no_longer(connection, shop)
        known, slot = slots.state(connection, shop)
        if known and slot and slot.status == "lost":
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot.name])
            slot = None
        due = [
            table
            for table in sorted(shop.tables)
            if slots.table_fault(connection, shop, known, slot, table)
        ]
        if slot is None or known is None:
            name = f"{shop.footprint.lower()}_{uuid4().hex[:8]}"
            known = Capture(name, known.tables if known else {})
        _publish(connection, shop, known, due)
    _begin(url, shop, at)
    return due


def remove(url: str, shop: Shop) -> None:
    """Drop slot and publication and give the tables their former replica identity back."""
    with open_database(url) as connection:
        _wait_no_longer(connection, shop)
        known, slot = slots.state(connection, shop)
        if slot is not None:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot.name])
        for table, log in (known.tables if known else {}).items():
            _restore_identity(connection, shop, table, log)
        name = sql.Identifier(publication(shop))
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(name))


def check(url: str, shop: Shop) -> list[str]:
    """What is wrong with the shop's tables, slot and server; see `modes.check`."""
    with open_database(url) as connection:
        findings = drifts(connection, shop)
        known, slot = slots.state(connection, shop)
        if fault := slots.slot_fault(known, slot):
            return [*findings, fault]
        for table in sorted(shop.tables):
            if fault := slots.table_fault(connection, shop, known, slot, table):
                findings.append(fault)
        if slot and (slot.held or 0) > HELD_LIMIT:
            findings.append(
                f"the replication slot {slot.name} holds back {slot.held:,} bytes of the server's "
                f"log (limit {HELD_LIMIT:,}) and its disk may fill; extract every table up to now, "
                "which releases them, or give capture up with `python -m pipelines capture "
                "remove`; max_slot_wal_keep_size bounds it at the price of a lost slot"
            )
    return findings


def _require_logical(connection: Any) -> None:
    level = connection.execute("SHOW wal_level").fetchone()[0]
    if level != "logical":
        raise SettingsError(
            f"the server's wal_level is {level}; `capture: wal` needs wal_level = logical in "
            "postgresql.conf (on managed servers a parameter such as rds.logical_replication) "
            "and a restart"
        )


def _wait_no_longer(connection: Any, shop: Shop) -> None:
    """One at a time, and nobody waits for long."""
    for limit in ("lock_timeout", "statement_timeout"):
        connection.execute(f"SET LOCAL {limit} = '{LOCK_TIMEOUT}'")
    connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [publication(shop)])


def _publish(connection: Any, shop: Shop, known: Capture, due: list[str]) -> None:
    """Publish the declared tables, and no other, with whole old rows."""
    tables = {}
    for table, log in known.tables.items():
        if table in shop.tables:
            tables[table] = log
        else:
            _restore_identity(connection, shop, table, log)
    for table in due:
        name = _qualified(shop, table)
        # No transaction that wrote to the table is open when its changes begin to be published.
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(name))
        row = table_state(connection, shop, table)
        assert row is not None  # noqa: S101 -- it is locked
        oid, kind, identity, index, _ = row
        if kind != "r":
            raise CaptureMissing(
                f"{table} is partitioned, which `capture: wal` does not read; declare "
                "`capture: trigger` instead"
            )
        former = tables.get(table)
        if former is None or former.oid != oid:
            former = Log("", oid, f"i:{index}" if identity == "i" else identity)
        if identity != "f":
            connection.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(name))
        tables[table] = Log(uuid4().hex, oid, former.identity)
    name = sql.Identifier(publication(shop))
    names = sql.SQL(", ").join(_qualified(shop, table) for table in sorted(tables))
    exists = connection.execute(slots.COMMENT, [publication(shop)]).fetchone()
    verb = "ALTER PUBLICATION {} SET TABLE {}" if exists else "CREATE PUBLICATION {} FOR TABLE {}"
    connection.execute(sql.SQL(verb).format(name, names))
    _remember(connection, shop, Capture(known.slot, tables))


def _begin(url: str, shop: Shop, at: datetime | None) -> None:
    """Make the slot, unless it is there, and note when capture began: after that."""
    with open_database(url) as connection:
        # The publication stands before the slot begins: the log is read with the catalogue of
        # its time. A slot is made in a transaction that writes nothing.
        _wait_no_longer(connection, shop)
        known, slot = slots.state(connection, shop)
        if known and slot is None:
            make = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')"
            try:
                connection.execute(make, [known.slot])
            except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as error:
                raise SourceUnavailable(
                    f"the replication slot waited {LOCK_TIMEOUT} for transactions open in the "
                    "shop's database (see pg_stat_activity.xact_start); end them, then install "
                    "again"
                ) from error
    with open_database(url) as connection:
        _wait_no_longer(connection, shop)
        known, _ = slots.state(connection, shop)
        if known is None:
            raise CaptureMissing(f"capture was removed while it was being installed; {INSTALL}")
        now = at or connection.execute("SELECT clock_timestamp()").fetchone()[0]
        began = now.astimezone(UTC).isoformat()
        tables = {
            table: replace(log, began=log.began or began) for table, log in known.tables.items()
        }
        _remember(connection, shop, Capture(known.slot, tables))


def _remember(connection: Any, shop: Shop, capture: Capture) -> None:
    comment = sql.SQL("COMMENT ON PUBLICATION {} IS {}")
    name = sql.Identifier(publication(shop))
    connection.execute(comment.format(name, sql.Literal(json.dumps(asdict(capture)))))


def _restore_identity(connection: Any, shop: Shop, table: str, log: Log) -> None:
    row = table_state(connection, shop, table)
    if row is None or row[0] != log.oid or log.identity == "f":
        return
    words = {"d": sql.SQL("DEFAULT"), "n": sql.SQL("NOTHING")}
    index = re.sub("^i:", "", log.identity)
    former = words.get(log.identity) or sql.SQL("USING INDEX {}").format(sql.Identifier(index))
    alter = sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}")
    connection.execute(alter.format(_qualified(shop, table), former))


def _qualified(shop: Shop, table: str) -> sql.Identifier:
    return sql.Identifier(shop.source.schema_name, table)
