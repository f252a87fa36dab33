"""Connections to a shop's PostgreSQL database; its errors as Freshrank's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa

from pipelines.shared.errors import CaptureMissing, SourceUnavailable

OLDEST = 130000
"""PostgreSQL 13 brought `xid8` and `pg_current_snapshot`."""

_SESSION = (
    "-c TimeZone=UTC -c DateStyle=ISO -c client_encoding=UTF8 -c client_min_messages=warning "
    "-c bytea_output=hex -c extra_float_digits=1"
)


@contextmanager
def connect(url: str, capture: str = "trigger", oldest: int = OLDEST) -> Iterator[Any]:
    """One transaction on a shop's database: committed when the block ends well.

    Any PostgreSQL driver in the URL is read as psycopg; `capture` is for the messages.

    Raises:
        SourceUnavailable: the database cannot be reached, or a lock was not given in time.
        CaptureMissing: the database is too old, or the account lacks a right.
    """
    address = sa.make_url(url)
    where = address.set(query={}).render_as_string(hide_password=True)
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(plain, connect_timeout=10, options=_SESSION) as connection:
            if connection.info.server_version < oldest:
                raise CaptureMissing(
                    f"{where} is PostgreSQL {connection.info.server_version // 10000}; "
                    f"`capture: {capture}` needs {oldest // 10000} or newer"
                )
            yield connection
    except psycopg.errors.InsufficientPrivilege as error:
        raise CaptureMissing(
            f"the account of {where} lacks a right ({error.diag.message_primary}); install "
            "capture as the tables' owner and grant the account USAGE on the capture schema "
            "and SELECT on its tables (DELETE, too, for `retention.captured_days`)"
        ) from error
    except psycopg.OperationalError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SourceUnavailable(
            f"the shop's database {where} does not answer ({first}); "
            "start it or mend the connection, then run again"
        ) from error
