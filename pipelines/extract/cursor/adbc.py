"""Reads a query of PostgreSQL through ADBC: COPY in binary, 2.5 times as fast as a cursor."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from pipelines.extract.databases.any.connection import translated

BATCH_BYTES = 4 << 20
"""Bytes held in memory at once."""


def driver() -> Any:
    """ADBC's driver; None where it is not installed."""
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError:
        return None
    return dbapi


def stream(
    dbapi: Any, connection: sa.Connection, address: sa.URL, query: sa.Select[Any]
) -> Iterator[list[Any]]:
    """The columns of each batch of a query's rows, in the snapshot of an open transaction.

    Raises:
        SourceUnavailable: the connection broke.
    """
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    shared = connection.scalar(sa.text("SELECT pg_export_snapshot()"))
    options = {"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
    literal = query.compile(connection, compile_kwargs={"literal_binds": True})
    try:
        with dbapi.connect(plain) as other, other.cursor(adbc_stmt_kwargs=options) as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(f"SET TRANSACTION SNAPSHOT '{shared}'")
            cursor.execute("SET LOCAL TimeZone = 'UTC'")
            cursor.execute("SET LOCAL cursor_tuple_fraction = 1")
            # The driver sends the text as it is; only the psycopg dialect doubles percents.
            cursor.execute(str(literal).replace("%%", "%"))
            for batch in _ahead(cursor.fetch_record_batch()):
                yield batch.columns
    except dbapi.Error as error:
        raise translated(error, address) from error


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same, each fetched while the one before is worked on: the server need not wait."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch
