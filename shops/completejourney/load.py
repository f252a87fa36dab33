"""Build the shop: open it, install change capture, live through the year."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import files

import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import make_url

from pipelines.shared.errors import PermanentError, SourceUnavailable
from shops.completejourney.history import History
from shops.completejourney.life import OPENING, Life
from shops.completejourney.package import data_files
from shops.completejourney.replay import copy_in, play, play_opening, set_clock, stage

SHOP_TABLES = ("households", "products", "orders", "order_lines", "promotions", "coupons")
_TABLES_SQL = files(__package__).joinpath("tables.sql").read_text(encoding="utf-8")
_LOCK = "SELECT pg_try_advisory_lock(hashtext('freshrank.completejourney'))"


def load(
    url: str,
    *,
    share: float,
    until: datetime,
    install_capture: Callable[[datetime], None] | None = None,
    life: Life | None = None,
    console: Console | None = None,
) -> dict[str, int]:
    """Replace a database's shop by one that lived from `OPENING` to `until`; returns row counts.

    Args:
        share: of the households, in (0, 1]; a smaller share is part of a larger one.
        until: changes committed before it are made; the shop's clock then stands at it.
        install_capture: called once, after what exists at opening is in and before the first
            change, with the time under which the existing rows are to be captured.

    Raises:
        PackageDamaged: a data file is missing or corrupt; nothing was touched.
        PermanentError: `share` or `until` is out of range, or another load is running.
        SourceUnavailable: the database cannot be reached.
    """
    life = life or Life()
    _require_range(share, until)
    sources = data_files()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    shown = Progress(*columns, console=console or Console(stderr=True))
    with _connected(url) as connection, shown as progress:
        # Held by the session: it is released when the loader dies.
        if connection.execute(_LOCK).fetchone() != (True,):
            raise PermanentError("another process is loading this shop; wait until it has finished")
        task = progress.add_task("the shop's history", total=None)
        # From here until the end no interval has ended: nobody extracts a shop that is half there.
        set_clock(connection, OPENING)
        with History(sources, share, until, life) as history:
            # From here until the end no marker says that the shop is whole.
            connection.execute("DROP SCHEMA IF EXISTS replay CASCADE")
            connection.execute("CREATE SCHEMA replay")
            connection.execute(_TABLES_SQL)
            progress.update(task, description="the shop before its opening")
            copy_in(connection, history, "households", "public.households")
            copy_in(connection, history, "opening_products", "public.products")
            stage(connection, history)
            play_opening(connection)
            if install_capture is not None:
                install_capture(OPENING)
            progress.update(task, total=(until - OPENING).total_seconds())

            def show(now: datetime) -> None:
                progress.update(
                    task,
                    completed=(now - OPENING).total_seconds(),
                    description=f"the shop on {now:%a %d %b %Y}",
                )

            play(connection, history, life, show)
        _finish(connection, until)
        progress.update(task, completed=(until - OPENING).total_seconds())
        return _row_counts(connection)


def _require_range(share: float, until: datetime) -> None:
    if not 0 < share <= 1:
        raise PermanentError(f"share is {share}, a share of the households; give 0 < share <= 1")
    if until.tzinfo is None or until <= OPENING:
        raise PermanentError(
            f"until is {until.isoformat()}; give a time with a zone after {OPENING.isoformat()}"
        )


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    address = make_url(url).set(drivername="postgresql")
    try:
        connection = psycopg.connect(
            address.render_as_string(hide_password=False), autocommit=True, connect_timeout=10
        )
    except psycopg.OperationalError as error:
        raise SourceUnavailable(
            f"the shop's database {make_url(url).render_as_string()} cannot be reached; "
            "is its server running?"
        ) from error
    with connection:
        # A power cut during the load costs a reload, never a half shop: the marker comes last.
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET client_min_messages = warning")
        yield connection


def _finish(connection: psycopg.Connection, until: datetime) -> None:
    """Remove the staging tables, leave the marker and stop the clock, all or nothing."""
    with connection.transaction():
        connection.execute("DROP SCHEMA replay CASCADE")
        connection.execute("CREATE SCHEMA replay")
        connection.execute("CREATE TABLE replay.loaded ()")
        set_clock(connection, until)
    for table in SHOP_TABLES:
        connection.execute(f"VACUUM ANALYZE public.{table}")


def _row_counts(connection: psycopg.Connection) -> dict[str, int]:
    counts = {}
    for table in SHOP_TABLES:
        row = connection.execute(f"SELECT count(*) FROM public.{table}").fetchone()
        counts[table] = int(row[0]) if row else 0
    return counts
