"""Installs trigger capture in a shop's PostgreSQL database, checks it and removes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pipelines.extract.databases.postgres.catalogue import columns_of, drift, drifts
from pipelines.extract.databases.postgres.connection import connect
from pipelines.extract.source import INSTALL
from pipelines.extract.trigger.postgres.sql import CLOCK, EVENTS, Capture
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift

LOCK_TIMEOUT = "30s"
"""How long installing waits for a busy table: behind it, the shop's own writers queue."""

_HOUSEKEEPING = """
    CREATE SCHEMA IF NOT EXISTS "{schema}";
    CREATE TABLE IF NOT EXISTS "{schema}".captures (
        table_name text PRIMARY KEY,
        log uuid NOT NULL DEFAULT gen_random_uuid(),
        source oid NOT NULL,
        definition text NOT NULL
    );
    CREATE TABLE IF NOT EXISTS "{schema}".transactions (
        transaction xid8 PRIMARY KEY,
        first_at timestamptz NOT NULL,
        last_at timestamptz NOT NULL
    );
    CREATE INDEX IF NOT EXISTS transactions_last_at
        ON "{schema}".transactions USING brin (last_at);
    CREATE TABLE IF NOT EXISTS "{schema}".marks (
        before timestamptz PRIMARY KEY,
        snapshot pg_snapshot NOT NULL
    );
    CREATE OR REPLACE FUNCTION "{schema}".mark(ending timestamptz) RETURNS pg_snapshot
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $mark$
    BEGIN
        INSERT INTO "{schema}".marks VALUES (ending, pg_current_snapshot())
        ON CONFLICT DO NOTHING;
        RETURN (SELECT snapshot FROM "{schema}".marks WHERE before = ending);
    END $mark$;
    CREATE TABLE IF NOT EXISTS "{schema}".faults (
        table_name text NOT NULL,
        message text NOT NULL,
        noted_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
"""
_STATE = """
    SELECT to_regclass(%(source)s)::oid = c.source AND c.definition = %(definition)s
           AND %(triggers)s::int = (
               SELECT count(*) FROM pg_trigger AS t
               WHERE t.tgrelid = to_regclass(%(source)s) AND t.tgname = ANY(%(names)s)
                     AND t.tgenabled = 'A'),
           (SELECT min(message) FROM "{schema}".faults AS f WHERE f.table_name = c.table_name)
    FROM "{schema}".captures AS c WHERE c.table_name = %(table)s
"""


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Capture the changes of every declared table, beginning with the rows it holds.

    One transaction, during which the tables cannot be written to: no row is lost or doubled
    between the rows present and the first change. A table that is captured as declared is left
    alone. One whose capture was damaged, switched off or declared otherwise catches up: what
    differs between the changes known and the rows present is written as changes. See
    `modes.install`.

    Raises:
        SchemaDrift: a table is not as declared; nothing was installed.
        CaptureMissing: `at` lies before changes already captured, or a right is missing.
        SourceUnavailable: the database does not answer, or a table stayed busy.
    """
    captures = [Capture(shop, table) for table in sorted(shop.tables)]
    with connect(url) as connection:
        if faults := drifts(connection, shop):
            raise SchemaDrift("; ".join(faults))
        connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [shop.footprint])
        connection.execute(_HOUSEKEEPING.format(schema=shop.footprint))
        _forget_undeclared(connection, shop)
        due = [each for each in captures if capture_fault(connection, each)]
        for each in due:
            connection.execute(f"LOCK TABLE {each.source} IN SHARE ROW EXCLUSIVE MODE")
        for each in due:
            _capture(connection, each, at)
    return [each.table for each in due]


def remove(url: str, shop: Shop) -> None:
    """Take every trigger, function and captured change out of the shop's database again."""
    with connect(url) as connection:
        connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        connection.execute(f'DROP SCHEMA IF EXISTS "{shop.footprint}" CASCADE')


def check(url: str, shop: Shop) -> list[str]:
    """See `modes.check`."""
    findings = []
    with connect(url) as connection:
        for table in sorted(shop.tables):
            findings += drift(connection, shop, table)
            if fault := capture_fault(connection, Capture(shop, table)):
                findings.append(fault)
    return findings


def capture_fault(connection: Any, capture: Capture) -> str:
    """Why a table's changes are not, or not all, captured; empty where they are."""
    exists = "SELECT to_regclass(%s) IS NOT NULL"
    if connection.execute(exists, [f'"{capture.schema}".captures']).fetchone() == (False,):
        return f"changes of {capture.table} are not captured; {INSTALL}"
    state = connection.execute(
        _STATE.format(schema=capture.schema),
        {
            "table": capture.table,
            "source": capture.source,
            "definition": _definition(capture),
            "triggers": len(EVENTS),
            "names": [capture.trigger(event) for event in EVENTS],
        },
    ).fetchone()
    if state is None:
        return f"changes of {capture.table} are not captured; {INSTALL}"
    whole, fault = state
    if fault:
        return (
            f"capture of {capture.table} failed ({fault}) and misses changes since; mend the "
            f"table or its declaration, then {INSTALL}, which catches up"
        )
    if not whole:
        return (
            f"capture of {capture.table} was switched off, removed or does not match the "
            f"declaration any more; {INSTALL}, which catches up"
        )
    return ""


def _capture(connection: Any, capture: Capture, at: datetime | None) -> None:
    connection.execute(capture.create_changes())
    _fit_columns(connection, capture)
    _require_order(connection, capture, at)
    connection.execute(capture.create_function())
    connection.execute(capture.create_triggers())
    clock = f"timestamptz '{at.isoformat()}'" if at else CLOCK
    # Two large sets without statistics are compared: never by nested loops.
    connection.execute("SET LOCAL enable_nestloop = off")
    connection.execute(capture.catch_up(clock))
    connection.execute(f"ANALYZE {capture.changes}")
    connection.execute(
        f'DELETE FROM "{capture.schema}".faults WHERE table_name = %s', [capture.table]
    )
    connection.execute(
        f'INSERT INTO "{capture.schema}".captures (table_name, source, definition) '
        "VALUES (%s, %s::regclass::oid, %s) ON CONFLICT (table_name) DO UPDATE "
        "SET source = excluded.source, definition = excluded.definition",
        [capture.table, capture.source, _definition(capture)],
    )


def _fit_columns(connection: Any, capture: Capture) -> None:
    """Give the table of changes the columns that the declaration stores now, and no other."""
    own = {"seq", "transaction", "op", "committed_at"}
    present = columns_of(connection, capture.schema, f"changes_{capture.table}")
    steps = [f'DROP COLUMN "{name}"' for name in present if name not in {*own, *capture.columns}]
    for name, kind in capture.columns.items():
        if name not in present:
            steps.append(f'ADD COLUMN "{name}" {kind}')
        elif kind != present[name].written.replace("timestamp with time zone", "timestamptz"):
            steps.append(f'ALTER COLUMN "{name}" TYPE {kind} USING "{name}"::{kind}')
    if steps:
        connection.execute(f"ALTER TABLE {capture.changes} {', '.join(steps)}")


def _require_order(connection: Any, capture: Capture, at: datetime | None) -> None:
    last = connection.execute(f"SELECT max(committed_at) FROM {capture.changes}").fetchone()[0]
    if at is not None and last is not None and at < last:
        raise CaptureMissing(
            f"{capture.table} was captured until {last.isoformat()} already, so its rows cannot "
            f"be taken as of {at.isoformat()}; run `python -m pipelines capture remove` first to "
            "start afresh"
        )


def _forget_undeclared(connection: Any, shop: Shop) -> None:
    """Remove what was captured of tables that are no longer declared."""
    schema = shop.footprint
    rows = connection.execute(f'SELECT table_name FROM "{schema}".captures').fetchall()
    for (table,) in rows:
        if table not in shop.tables:
            connection.execute(
                f'DROP FUNCTION IF EXISTS "{schema}"."capture_{table}" CASCADE; '
                f'DROP TABLE IF EXISTS "{schema}"."changes_{table}"; '
            )
            for kept in ("captures", "faults"):
                connection.execute(f'DELETE FROM "{schema}".{kept} WHERE table_name = %s', [table])


def _definition(capture: Capture) -> str:
    return " ".join(f"{capture.create_function()} {capture.create_triggers()}".split())
