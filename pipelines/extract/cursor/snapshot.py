"""Reads a shop's tables in one read-only snapshot, in declared types, batch by batch.

Every database that SQLAlchemy knows is read through SQLAlchemy; PostgreSQL through ADBC where its
driver is installed, in the same snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from pipelines.extract.cursor import adbc
from pipelines.extract.databases.any import values
from pipelines.extract.databases.any.catalogue import reflected, schema_of
from pipelines.extract.databases.any.connection import connect
from pipelines.extract.databases.sqlite.values import array as sqlite_array
from pipelines.extract.source import FIRST_BATCH, rows_to_fetch
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import SchemaDrift

_DIGITS = "[0-9]"
_SQLITE_TIME = "-".join([_DIGITS * 4, _DIGITS * 2, _DIGITS * 2]) + " " + ":".join([_DIGITS * 2] * 3)


@contextmanager
def open_snapshot(url: str, shop: Shop) -> Iterator[Snapshot]:
    """A snapshot of a shop's database; raises what `connect` raises."""
    with connect(url) as (connection, address):
        yield Snapshot(connection, shop, address)


@dataclass(frozen=True)
class Snapshot:
    """An open read-only transaction."""

    connection: sa.Connection
    shop: Shop
    address: sa.URL

    @property
    def dialect(self) -> str:
        """SQLAlchemy's name of the kind of database."""
        return self.connection.dialect.name

    @property
    def schema(self) -> str | None:
        """The schema of the tables."""
        return schema_of(self.connection, self.shop)

    def now(self) -> datetime:
        """The database's clock, in UTC."""
        clock = {
            "postgresql": "SELECT clock_timestamp()",
            "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')",
            "mysql": "SELECT utc_timestamp(6)",
            "mariadb": "SELECT utc_timestamp(6)",
        }.get(self.dialect)
        now: Any = self.connection.scalar(sa.text(clock) if clock else sa.select(sa.func.now()))
        moment: datetime = datetime.fromisoformat(now) if isinstance(now, str) else now
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def table(self, name: str) -> sa.TableClause:
        """A declared table with the types that the database gives its columns.

        Raises:
            SchemaDrift: it is gone.
        """
        columns = reflected(self.connection, self.shop, name)
        if not columns:
            raise SchemaDrift(f"{name} is declared, but the database has no such table")
        return sa.table(name, *(sa.column(*each) for each in columns.items()), schema=self.schema)

    def moment(self, value: datetime | int) -> Any:
        """A cursor value as one side of a comparison.

        SQLite compares times as text: the shortest form of a time is not after its longer ones.
        """
        if isinstance(value, datetime) and self.dialect == "sqlite":
            text = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
            return sa.literal(text.rstrip("0").rstrip(".") if value.microsecond else text[:19])
        if isinstance(value, datetime) and self.dialect != "postgresql":
            return sa.literal(value.astimezone(UTC).replace(tzinfo=None))
        return sa.literal(value)

    def unfit(self, column: Any, timed: bool) -> Any:
        """Where a column can be no cursor: null, or a time that SQLite cannot order."""
        if timed and self.dialect == "sqlite":
            fits = column.op("GLOB")(_SQLITE_TIME) | column.op("GLOB")(f"{_SQLITE_TIME}.[0-9]*")
            zoned = column.op("GLOB")("*.*[^0-9]*")
            text = sa.func.typeof(column) == "text"
            return column.is_(None) | ~(text & fits & ~zoned)
        return column.is_(None)

    def selected(self, column: Any, kind: pa.DataType) -> Any:
        """How a column is asked for, so that its declared type is met exactly."""
        return values.selected(self.dialect, column, kind)

    def stream(
        self, source: sa.TableClause, condition: Any, order: Any, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """The columns of `schema`, and the misfits, of a table's rows that fulfil a condition.

        Raises:
            SourceUnavailable: the connection broke.
        """
        declared = self.shop.tables[source.name]
        selected = [
            values.selected(self.dialect, source.c[each.name], each.type).label(each.name)
            for each in schema
        ]
        outside = {}
        for each in schema:
            text = values.outside(self.dialect, source.c[each.name], each.type)
            if text is not None:
                outside[each.name] = text.label(f"_outside_{each.name}")
        query = sa.select(*selected, *outside.values()).where(condition).order_by(*order)
        array = sqlite_array if self.dialect == "sqlite" else values.array
        batch = partial(values.batch, declared, schema=schema, outside=[*outside], array=array)
        dbapi = adbc.driver() if self.dialect == "postgresql" else None
        if dbapi is not None:
            for columns in adbc.stream(dbapi, self.connection, self.address, query):
                yield batch(columns)
            return
        # A buffer of its own would hold as many rows, however large they are.
        options = {"stream_results": True, "max_row_buffer": 1}
        with self.connection.execute(query, execution_options=options) as result:
            count = FIRST_BATCH
            while rows := result.fetchmany(count):
                fetched = batch(list(zip(*rows, strict=True)))
                yield fetched
                count = rows_to_fetch(fetched.num_rows, fetched.nbytes)
