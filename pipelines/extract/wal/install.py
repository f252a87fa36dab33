"""A shop's logical replication slot and publication: made, checked, moved on and removed.

One publication (see `Shop.footprint`) with every declared table and one slot with a name of its own
each time, so that a slot made anew is never taken for the former one. What capture has to
remember (the slot's name; per table its log, number, beginning and former replica identity)
stands in the publication's comment: nothing else is added to the shop's database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from pipelines.extract.databases.postgres.catalogue import drift
from pipelines.extract.databases.postgres.connection import connect
from pipelines.extract.source import Position
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import (
    CaptureMissing,
    DeclarationError,
    SchemaDrift,
    SettingsError,
    SourceUnavailable,
)

OLDEST = 140000
"""PostgreSQL 14 brought messages to pgoutput, which mark the end of an interval."""

HELD_LIMIT = 4 << 30
"""Bytes of log that the slot may hold back before `check` reports it."""

LOCK_TIMEOUT = "30s"
"""How long installing waits: for a busy table (behind it, the shop's own writers queue), and
for open transactions to end before the slot begins."""

MAX_NAME = 54
"""Letters of a publication: with `_<8 digits>` the slot's name is at most 63 bytes."""

AGAIN = "run `python -m pipelines capture install`"
ANEW = (
    "run `python -m pipelines capture remove`, then `capture install`, which begins anew with the "
    "rows present"
)
_TABLE = """
    SELECT c.oid::bigint, c.relkind::text, c.relreplident::text, i.relname,
           EXISTS (SELECT FROM pg_publication_rel AS r JOIN pg_publication AS p ON p.oid = r.prpubid
                   WHERE r.prrelid = c.oid AND p.pubname = %s)
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_index AS x ON x.indrelid = c.oid AND x.indisreplident
    LEFT JOIN pg_class AS i ON i.oid = x.indexrelid
    WHERE n.nspname = %s AND c.relname = %s
"""
_SLOT = """
    SELECT slot_name, wal_status, confirmed_flush_lsn - '0/0',
           pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
    FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()
"""
_COMMENT = "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = %s"


@dataclass(frozen=True)
class Log:
    """What capture remembers of a table."""

    id: str
    """Another one each time that capture of the table begins."""
    oid: int
    identity: str
    """The replica identity before: d(efault), n(othing), f(ull), or an index's name after i:."""
    began: str | None = None
    """ISO time from which changes are captured, and of the rows found; None: not begun."""


@dataclass(frozen=True)
class Capture:
    """What capture remembers of a shop."""

    slot: str
    tables: dict[str, Log] = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """The slot as the server has it."""

    name: str
    status: str
    """reserved, extended, unreserved or lost."""
    confirmed: int
    """The log before this place is given up."""
    held: int | None
    """Bytes of log that the slot holds back."""


@contextmanager
def open_database(url: str) -> Iterator[Any]:
    """`connect`, with errors in the words of this way of capture.

    Raises:
        CaptureMissing: the server is too old, or the account lacks a right.
        SourceUnavailable: the database or a slot cannot be had now.
    """
    with connect(url, "wal", OLDEST) as connection:
        try:
            yield connection
        except psycopg.errors.InsufficientPrivilege as error:
            raise CaptureMissing(
                f"the account lacks a right ({error.diag.message_primary}); to read changes it "
                "needs REPLICATION (ALTER ROLE … REPLICATION) and SELECT on the declared tables, "
                "to install capture also to own them and CREATE on the database"
            ) from error
        except psycopg.errors.ConfigurationLimitExceeded as error:
            raise SourceUnavailable(
                f"no replication slot is free ({error.diag.message_primary}): besides the shop's "
                "own, each table being extracted needs one for that time; raise "
                "max_replication_slots, or run fewer tables at once, then run again"
            ) from error
        except psycopg.errors.ObjectInUse as error:
            raise SourceUnavailable(
                f"the replication slot is in use ({error.diag.message_primary}); run again"
            ) from error


def publication(shop: Shop) -> str:
    """Name of the shop's publication.

    Raises:
        DeclarationError: a name would be longer than PostgreSQL allows.
    """
    if len(shop.footprint) > MAX_NAME:
        raise DeclarationError(
            f"the name {shop.footprint} has more than {MAX_NAME} letters, too many for the name "
            "of a replication slot; give the shop or its source a shorter one"
        )
    return shop.footprint


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Capture the changes of every declared table from now on.

    Tables get REPLICA IDENTITY FULL, so that the log carries whole old rows. A table that is
    captured as declared is left alone. The rows found are read by the first extraction.

    Args:
        url: SQLAlchemy URL of the shop's database.
        shop: its declaration.
        at: commit time of the rows found; default: the shop's clock.

    Returns:
        The tables newly or again captured.

    Raises:
        SchemaDrift: a table is not as declared; nothing was installed.
        SettingsError: the server writes no logical log.
        CaptureMissing: a right is missing, or a table cannot be captured.
        SourceUnavailable: the database does not answer, or something stayed busy.
    """
    with open_database(url) as connection:
        _require_logical(connection)
        if faults := [
            fault for table in sorted(shop.tables) for fault in drift(connection, shop, table)
        ]:
            raise SchemaDrift("; ".join(faults))
        _wait_no_longer(connection, shop)
        known = recorded(connection, shop)
        slot = find_slot(connection, known)
        if known and slot and slot.status == "lost":
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot.name])
            slot = None
        due = [
            table
            for table in sorted(shop.tables)
            if _table_fault(connection, shop, known, slot, table)
        ]
        if slot is None or known is None:
            name = f"{shop.footprint.lower()}_{uuid4().hex[:8]}"
            known = Capture(name, known.tables if known else {})
        _publish(connection, shop, known, due)
    _begin(url, shop, at)
    return due


def remove(url: str, shop: Shop) -> None:
    """Drop slot and publication and give the tables their former replica identity back.

    Raises:
        SourceUnavailable: the database does not answer, or something stayed busy.
    """
    with open_database(url) as connection:
        _wait_no_longer(connection, shop)
        known = recorded(connection, shop)
        if find_slot(connection, known) is not None and known is not None:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [known.slot])
        for table, log in (known.tables if known else {}).items():
            _restore_identity(connection, shop, table, log)
        name = sql.Identifier(publication(shop))
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(name))


def check(url: str, shop: Shop) -> list[str]:
    """What is wrong with the shop's tables, slot and server, each with the way out.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    with open_database(url) as connection:
        findings = [
            fault for table in sorted(shop.tables) for fault in drift(connection, shop, table)
        ]
        known = recorded(connection, shop)
        slot = find_slot(connection, known)
        if fault := _slot_fault(known, slot):
            return [*findings, fault]
        findings += [
            fault
            for table in sorted(shop.tables)
            if (fault := _table_fault(connection, shop, known, slot, table))
        ]
        if slot and (slot.held or 0) > HELD_LIMIT:
            findings.append(
                f"the replication slot {slot.name} holds back {slot.held:,} bytes of the server's "
                f"log (limit {HELD_LIMIT:,}) and its disk may fill; extract every table up to now, "
                "which lets go of them, or give capture up with `python -m pipelines capture "
                "remove`; max_slot_wal_keep_size bounds it at the price of a lost slot"
            )
    return findings


def release(url: str, shop: Shop, positions: Mapping[str, Position]) -> None:
    """Let the server drop the log before the earliest recorded position.

    Nothing happens while a declared table has no position in its present log.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    with open_database(url) as connection:
        known = recorded(connection, shop)
        slot = find_slot(connection, known)
        if known is None or slot is None or slot.status == "lost":
            return
        places = []
        for table in shop.tables:
            log, position = known.tables.get(table), positions.get(table, {})
            if log is None or position.get("log") != log.id:
                return
            places.append(position["lsn"])
        if min(places) <= slot.confirmed:
            return
        try:
            connection.execute(
                "SELECT pg_replication_slot_advance(%s, '0/0'::pg_lsn + %s)",
                [slot.name, min(places)],
            )
        except psycopg.errors.ObjectInUse:
            connection.rollback()  # Another table's extraction is just doing the same.


def capture_fault(connection: Any, shop: Shop, table: str) -> str:
    """Why a table's changes are not, or not all, captured; empty where they are."""
    known = recorded(connection, shop)
    slot = find_slot(connection, known)
    return _slot_fault(known, slot) or _table_fault(connection, shop, known, slot, table)


def recorded(connection: Any, shop: Shop) -> Capture | None:
    """What capture remembers; None where it is not installed."""
    row = connection.execute(_COMMENT, [publication(shop)]).fetchone()
    if row is None or not row[0]:
        return None
    kept = json.loads(row[0])
    return Capture(kept["slot"], {name: Log(**log) for name, log in kept["tables"].items()})


def find_slot(connection: Any, known: Capture | None) -> Slot | None:
    """The slot that capture remembers, if the server still has it."""
    row = connection.execute(_SLOT, [known.slot if known else ""]).fetchone()
    return None if row is None else Slot(row[0], row[1] or "", int(row[2] or 0), row[3])


def _slot_fault(known: Capture | None, slot: Slot | None) -> str:
    if known is None or not any(log.began for log in known.tables.values()):
        return f"changes are not captured; {AGAIN}"
    if slot is None:
        return (
            f"the replication slot {known.slot} is gone, and the changes since with it; {AGAIN}, "
            "which begins anew with the rows present"
        )
    if slot.status == "lost":
        return (
            f"the server gave up the replication slot {slot.name} (it held back more than "
            f"max_slot_wal_keep_size), and changes with it; {ANEW}"
        )
    return ""


def _table_fault(
    connection: Any, shop: Shop, known: Capture | None, slot: Slot | None, table: str
) -> str:
    log = known.tables.get(table) if known else None
    if slot is None or log is None or log.began is None:
        return f"changes of {table} are not captured; {AGAIN}"
    found = connection.execute(
        _TABLE, [publication(shop), shop.source.schema_name, table]
    ).fetchone()
    if found is None:
        return ""  # The declaration's check says so.
    oid, _, identity, _, published = found
    if oid == log.oid and identity == "f" and published:
        return ""
    what = "was made anew" if oid != log.oid else "left the publication"
    if oid == log.oid and published:
        what = "has no REPLICA IDENTITY FULL any more"
    return f"{table} {what}, and changes are missed; {AGAIN}, which begins anew with its rows"


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
        oid, kind, identity, index, _ = connection.execute(
            _TABLE, [publication(shop), shop.source.schema_name, table]
        ).fetchone()
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
    exists = connection.execute(_COMMENT, [publication(shop)]).fetchone()
    verb = "ALTER PUBLICATION {} SET TABLE {}" if exists else "CREATE PUBLICATION {} FOR TABLE {}"
    connection.execute(sql.SQL(verb).format(name, names))
    _remember(connection, shop, Capture(known.slot, tables))


def _begin(url: str, shop: Shop, at: datetime | None) -> None:
    """Make the slot, unless it is there, and note when capture began: after that."""
    with open_database(url) as connection:
        # The publication stands before the slot begins: the log is read with the catalogue of
        # its time. A slot is made in a transaction that writes nothing.
        _wait_no_longer(connection, shop)
        known = recorded(connection, shop)
        if known and find_slot(connection, known) is None:
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
        known = recorded(connection, shop)
        if known is None:
            raise CaptureMissing(f"capture was removed while it was being installed; {AGAIN}")
        now = at or connection.execute("SELECT clock_timestamp()").fetchone()[0]
        began = now.astimezone(UTC).isoformat()
        tables = {
            table: Log(log.id, log.oid, log.identity, log.began or began)
            for table, log in known.tables.items()
        }
        _remember(connection, shop, Capture(known.slot, tables))


def _remember(connection: Any, shop: Shop, capture: Capture) -> None:
    comment = sql.SQL("COMMENT ON PUBLICATION {} IS {}")
    name = sql.Identifier(publication(shop))
    connection.execute(comment.format(name, sql.Literal(json.dumps(asdict(capture)))))


def _restore_identity(connection: Any, shop: Shop, table: str, log: Log) -> None:
    found = connection.execute(
        _TABLE, [publication(shop), shop.source.schema_name, table]
    ).fetchone()
    if found is None or found[0] != log.oid or log.identity == "f":
        return
    words = {"d": sql.SQL("DEFAULT"), "n": sql.SQL("NOTHING")}
    index = re.sub("^i:", "", log.identity)
    former = words.get(log.identity) or sql.SQL("USING INDEX {}").format(sql.Identifier(index))
    alter = sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}")
    connection.execute(alter.format(_qualified(shop, table), former))


def _qualified(shop: Shop, table: str) -> sql.Identifier:
    return sql.Identifier(shop.source.schema_name, table)
