"""The simulated clock: one transaction a tick, with every change of that tick."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from shops.completejourney.history import History, commit_time
from shops.completejourney.life import Life

CLOCK = "freshrank.clock"
"""The setting from which change capture takes the commit time."""

_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Step:
    """One kind of change."""

    history: str
    """Its table in the history and, in the schema `replay`, in the database."""
    columns: str
    """The table's columns after `tick`."""
    statement: str
    """Makes the changes of one tick, given as the only parameter."""


def _inserts(history: str, table: str, columns: str) -> Step:
    names = ", ".join(column.split()[0] for column in columns.split(", "))
    return Step(
        history,
        columns,
        f"INSERT INTO public.{table} ({names}) SELECT {names} FROM replay.{history} "
        "WHERE tick = %s",
    )


STEPS = (
    Step(
        "price_updates",
        "product_id bigint, price numeric",
        "UPDATE public.products AS p SET price = s.price FROM replay.price_updates AS s "
        "WHERE s.tick = %s AND p.product_id = s.product_id",
    ),
    _inserts(
        "promotions_new",
        "promotions",
        "product_id bigint, valid_from timestamptz, valid_until timestamptz, "
        "display_share double precision, mailer_share double precision",
    ),
    Step(
        "promotions_changed",
        "product_id bigint, valid_from timestamptz, display_share double precision, "
        "mailer_share double precision",
        "UPDATE public.promotions AS p SET display_share = s.display_share, "
        "mailer_share = s.mailer_share FROM replay.promotions_changed AS s "
        "WHERE s.tick = %s AND p.product_id = s.product_id AND p.valid_from = s.valid_from",
    ),
    Step(
        "promotions_withdrawn",
        "product_id bigint, valid_from timestamptz",
        "DELETE FROM public.promotions AS p USING replay.promotions_withdrawn AS s "
        "WHERE s.tick = %s AND p.product_id = s.product_id AND p.valid_from = s.valid_from",
    ),
    _inserts(
        "coupons_new",
        "coupons",
        "campaign_id bigint, coupon_upc bigint, product_id bigint, valid_from timestamptz, "
        "valid_until timestamptz",
    ),
    _inserts(
        "orders_new",
        "orders",
        "order_id bigint, household_id bigint, store_id bigint, ordered_at timestamptz, "
        "total numeric",
    ),
    _inserts(
        "lines_new",
        "order_lines",
        "order_id bigint, line_no integer, household_id bigint, product_id bigint, "
        "store_id bigint, ordered_at timestamptz, quantity bigint, sales_value numeric, "
        "retail_disc numeric, coupon_disc numeric, coupon_match_disc numeric",
    ),
    Step(
        "lines_corrected",
        "order_id bigint, line_no integer, quantity bigint",
        "UPDATE public.order_lines AS l SET quantity = s.quantity "
        "FROM replay.lines_corrected AS s "
        "WHERE s.tick = %s AND l.order_id = s.order_id AND l.line_no = s.line_no",
    ),
    Step(
        "orders_cancelled",
        "order_id bigint",
        # The lines go with their order: one statement deletes both.
        "WITH cancelled AS (DELETE FROM public.orders AS o USING replay.orders_cancelled AS s "
        "WHERE s.tick = %s AND o.order_id = s.order_id RETURNING o.order_id) "
        "DELETE FROM public.order_lines AS l USING cancelled AS c WHERE l.order_id = c.order_id",
    ),
)
"""In the order in which a tick applies them."""


def stage(connection: psycopg.Connection, history: History) -> None:
    """Bring every step's changes into the schema `replay`, outside the watched tables."""
    for step in STEPS:
        table = f"replay.{step.history}"
        connection.execute(f"CREATE UNLOGGED TABLE {table} (tick integer, {step.columns})")
        copy_in(connection, history, step.history, table)
        connection.execute(f"CREATE INDEX ON {table} (tick)")


def copy_in(connection: psycopg.Connection, history: History, source: str, target: str) -> None:
    """Copy a table of the history into a table with the same columns."""
    with tempfile.TemporaryDirectory(prefix="freshrank-") as folder:
        file = Path(folder) / f"{source}.csv"
        history.write_csv(source, file)
        statement = f"COPY {target} FROM STDIN (FORMAT csv, NULL '\\N')"
        with file.open("rb") as rows, connection.cursor().copy(statement) as copy:
            while piece := rows.read(_COPY_BYTES):
                copy.write(piece)


def play_opening(connection: psycopg.Connection) -> None:
    """Make the changes of tick 0: what was known when the shop opened."""
    for step in STEPS:
        connection.execute(step.statement, [0])


def play(
    connection: psycopg.Connection,
    history: History,
    life: Life,
    on_tick: Callable[[datetime], None],
) -> None:
    """Live through the history, tick by tick; `on_tick` gets each commit time."""
    due: dict[int, list[Step]] = {}
    for step in STEPS:
        for tick in history.ticks(step.history):
            if tick > 0:
                due.setdefault(tick, []).append(step)
    _fix_plans(connection)
    for tick in sorted(due):
        now = commit_time(tick, life)
        with connection.transaction():
            connection.execute("SELECT set_config(%s, %s, true)", [CLOCK, now.isoformat()])
            for step in due[tick]:
                connection.execute(step.statement, [tick])
        on_tick(now)


def set_clock(connection: psycopg.Connection, now: datetime) -> None:
    """Let later sessions of this database see the shop's clock at `now`."""
    connection.execute(
        sql.SQL("ALTER DATABASE {name} SET {clock} = {now}").format(
            name=sql.Identifier(connection.info.dbname),
            clock=sql.SQL(CLOCK),
            now=sql.Literal(now.isoformat()),
        )
    )


def _fix_plans(connection: psycopg.Connection) -> None:
    """Leave the planner one plan only, so that rows are changed in the same order every time."""
    for way in ("seqscan", "hashjoin", "mergejoin", "bitmapscan"):
        connection.execute(sql.SQL("SET {} = off").format(sql.Identifier(f"enable_{way}")))
