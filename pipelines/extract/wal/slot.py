"""A shop's replication slot and publication, and what capture remembers in it.

One publication (see `Shop.footprint`) with every declared table and one slot with another name
each time, so that a new slot is never taken for the former one. What capture has to remember (the
slot's name; per table its log, number, beginning and former replica identity) stands in the
publication's comment: nothing else is added to the shop's database.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pipelines.extract.databases.postgres.connection import connect
from pipelines.extract.source import INSTALL, Position
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, DeclarationError, SourceUnavailable

OLDEST = 140000
"""PostgreSQL 14 brought messages to pgoutput, which mark the end of an interval."""

MAX_NAME = 54
"""Letters of a publication: with `_<8 digits>` the slot's name is at most 63 bytes."""

FRESH_START = (
    "run `python -m pipelines capture remove`, then `capture install`, which starts afresh with "
    "the rows present"
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
COMMENT = "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = %s"


@dataclass(frozen=True)
class Log:
    """What capture remembers of a table."""

    id: str
    """Another one each time that capture of the table begins."""
    oid: int
    identity: str
    """The replica identity before: d(efault), n(othing), f(ull), or an index's name after i:."""
    began: str | None = None
    """ISO time from which changes are captured, and of the rows present; None: not begun."""


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
    """`connect`, with errors in the words of this capture mode.

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


def release(url: str, shop: Shop, positions: Mapping[str, Position]) -> None:
    """Let the server drop the log before the earliest recorded position.

    Nothing happens while a declared table has no position in its present log. See `Mode.release`.
    """
    with open_database(url) as connection:
        known, slot = state(connection, shop)
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
    known, slot = state(connection, shop)
    return slot_fault(known, slot) or table_fault(connection, shop, known, slot, table)


def state(connection: Any, shop: Shop) -> tuple[Capture | None, Slot | None]:
    """What capture remembers, None where it is not installed; its slot, if the server has it."""
    row = connection.execute(COMMENT, [publication(shop)]).fetchone()
    if row is None or not row[0]:
        return None, None
    kept = json.loads(row[0])
    known = Capture(kept["slot"], {name: Log(**log) for name, log in kept["tables"].items()})
    row = connection.execute(_SLOT, [known.slot]).fetchone()
    return known, row and Slot(row[0], row[1] or "", int(row[2] or 0), row[3])


def table_state(connection: Any, shop: Shop, table: str) -> tuple[Any, ...] | None:
    """A table's number, kind, replica identity, its index, and whether it is published."""
    bound = [publication(shop), shop.source.schema_name, table]
    row: tuple[Any, ...] | None = connection.execute(_TABLE, bound).fetchone()
    return row


def slot_fault(known: Capture | None, slot: Slot | None) -> str:
    """Why no table's changes are captured; empty where the slot is well."""
    if known is None or not any(log.began for log in known.tables.values()):
        return f"changes are not captured; {INSTALL}"
    if slot is None:
        return (
            f"the replication slot {known.slot} is gone, and the changes since with it; {INSTALL}, "
            "which starts afresh with the rows present"
        )
    if slot.status == "lost":
        return (
            f"the server gave up the replication slot {slot.name} (it held back more than "
            f"max_slot_wal_keep_size), and changes with it; {FRESH_START}"
        )
    return ""


def table_fault(
    connection: Any, shop: Shop, known: Capture | None, slot: Slot | None, table: str
) -> str:
    """Why a table's changes are missed, though the slot is well; empty where they are not."""
    log = known.tables.get(table) if known else None
    if slot is None or log is None or log.began is None:
        return f"changes of {table} are not captured; {INSTALL}"
    row = table_state(connection, shop, table)
    if row is None:
        return ""  # The declaration's check says so.
    oid, _, identity, _, published = row
    if oid == log.oid and identity == "f" and published:
        return ""
    what = "was created again" if oid != log.oid else "left the publication"
    if oid == log.oid and published:
        what = "has no REPLICA IDENTITY FULL any more"
    return f"{table} {what}, and changes are missed; {INSTALL}, which starts afresh with its rows"
