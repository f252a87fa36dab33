"""The published table in the shop's database: replaced whole, in one transaction."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from pipelines.publish.lists import RANK, SCORE
from pipelines.shared import columns as c
from pipelines.shared.errors import PermanentError, SourceUnavailable

VERSION = "version"
PUBLISHED_AT = "published_at"
_TIME = sa.DateTime(timezone=True)


class TableUnusable(PermanentError):
    """The table to publish to has other columns, or may not be written."""


@dataclass(frozen=True)
class Stamp:
    """The columns of every row beside the list itself."""

    version: int
    interval_start: datetime
    published_at: datetime


class PublishedTable:
    """The table that the shop reads.

    Args:
        url: of the shop's database.
        schema: where its tables are; ignored where the database has none.
        name: of the table.
        shopper, item: types of the ids.
    """

    def __init__(
        self, url: str, schema: str, name: str, shopper: pa.DataType, item: pa.DataType
    ) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        self._shopper = shopper
        self._table = sa.Table(
            name,
            sa.MetaData(schema=_schema(self._engine.dialect.name, schema)),
            sa.Column(c.SHOPPER, _sql_type(shopper), primary_key=True, autoincrement=False),
            sa.Column(RANK, sa.Integer, primary_key=True, autoincrement=False),
            sa.Column(c.ITEM, _sql_type(item), nullable=False),
            sa.Column(SCORE, sa.Double, nullable=False),
            sa.Column(VERSION, sa.Integer, nullable=False),
            sa.Column(c.INTERVAL, _TIME, nullable=False),
            sa.Column(PUBLISHED_AT, _TIME, nullable=False),
        )

    @property
    def name(self) -> str:
        """The table's name, with its schema where it has one."""
        return str(self._table.fullname)

    def replace(self, lists: pa.Table, stamp: Stamp) -> datetime | None:
        """Replace the lists in the table, unless those are of a later interval.

        Readers see the old lists or the new ones, whole. The table is created where it is missing
        and never dropped: its grants, indexes and views stay.

        Args:
            lists: see `lists.top`.

        Returns:
            None when replaced; else the start of the later interval that was kept.

        Raises:
            SourceUnavailable: the database does not answer.
            TableUnusable: the table has other columns, or may not be written.
        """
        with self._transaction() as connection:
            self._lock(connection)
            self._table.create(connection, checkfirst=True)
            self._require_columns(connection)
            newest = connection.scalar(sa.select(sa.func.max(self._table.c[c.INTERVAL])))
            if newest is not None and (start := _utc(newest)) > stamp.interval_start:
                return start
            connection.execute(self._table.delete())
            self._insert(connection, _stamped(lists, stamp))
        return None

    def erase(self, theirs: Callable[[pa.Array[Any]], pa.Array[Any]]) -> int:
        """Delete the lists of some shoppers.

        Args:
            theirs: of the shoppers in the table, those whose lists are deleted.

        Returns:
            The number of rows deleted; 0 where there is no table.

        Raises:
            SourceUnavailable: the database does not answer.
            TableUnusable: the table may not be written.
        """
        with self._transaction() as connection:
            if not sa.inspect(connection).has_table(self._table.name, self._table.schema):
                return 0
            self._lock(connection)
            column = self._table.c[c.SHOPPER]
            present = connection.scalars(sa.select(column).distinct()).all()
            gone = theirs(pa.array(present, self._shopper)).to_pylist()
            where = self._table.delete().where(column == sa.bindparam("who"))
            return sum(connection.execute(where, {"who": each}).rowcount for each in gone)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        where = self._engine.url.render_as_string(hide_password=True)
        try:
            with self._engine.begin() as connection:
                yield connection
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            raise SourceUnavailable(
                f"the shop's database at {where} does not answer ({error.orig}); the published "
                "lists stay, clear the task when it is back"
            ) from error
        except sa.exc.DBAPIError as error:
            raise TableUnusable(
                f"{self.name} at {where} could not be written ({error.orig}); let Freshrank's "
                "user create and write it, or name another table as publish_to in shop.yaml"
            ) from error

    def _lock(self, connection: sa.Connection) -> None:
        """Let one publisher in at a time; readers do not wait."""
        if connection.dialect.name == "postgresql":
            lock = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
            connection.execute(lock, {"name": f"freshrank/{self.name}"})

    def _require_columns(self, connection: sa.Connection) -> None:
        present = sa.inspect(connection).get_columns(self._table.name, self._table.schema)
        names = {column["name"] for column in present}
        if missing := [column.name for column in self._table.columns if column.name not in names]:
            raise TableUnusable(
                f"{self.name} exists and lacks the columns {', '.join(missing)}; drop it, or name "
                "another table as publish_to in shop.yaml"
            )

    def _insert(self, connection: sa.Connection, rows: pa.Table) -> None:
        driver: Any = connection.connection.driver_connection
        if connection.dialect.driver != "psycopg":
            connection.execute(self._table.insert(), rows.to_pylist())
            return
        from pyarrow import csv

        buffer = io.BytesIO()
        csv.write_csv(rows, buffer, csv.WriteOptions(include_header=False))
        quote = connection.dialect.identifier_preparer
        names = ", ".join(quote.quote(name) for name in rows.column_names)
        table = quote.format_table(self._table)
        with (
            driver.cursor() as cursor,
            cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT csv)") as copy,
        ):
            copy.write(buffer.getbuffer())


def _schema(dialect: str, declared: str) -> str | None:
    """The declared schema; None where the database has none of that name."""
    unnamed = dialect == "sqlite" or (declared == "public" and dialect != "postgresql")
    return None if unnamed else declared


def _sql_type(kind: pa.DataType) -> sa.types.TypeEngine[Any]:
    if pa.types.is_decimal(kind):
        return sa.Numeric(kind.precision, kind.scale)
    known: dict[pa.DataType, sa.types.TypeEngine[Any]] = {
        pa.int16(): sa.SmallInteger(),
        pa.int32(): sa.Integer(),
        pa.int64(): sa.BigInteger(),
        pa.date32(): sa.Date(),
    }
    # A key of text has a length in MySQL; 190 characters fit its indexes.
    return known.get(kind, sa.Text().with_variant(sa.String(190), "mysql", "mariadb"))


def _stamped(lists: pa.Table, stamp: Stamp) -> pa.Table:
    rows, kind = lists.num_rows, pa.timestamp("us", tz="UTC")
    constants: dict[str, Any] = {
        VERSION: pa.scalar(stamp.version, pa.int32()),
        c.INTERVAL: pa.scalar(stamp.interval_start, kind),
        PUBLISHED_AT: pa.scalar(stamp.published_at, kind),
    }
    for name, value in constants.items():
        lists = lists.append_column(name, pa.repeat(value, rows))
    return lists


def _utc(moment: datetime) -> datetime:
    """SQLite and MySQL lose the zone of a time."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
