"""Reads a shop's tables in one read-only snapshot, in declared types, batch by batch.

Every database that SQLAlchemy knows is read through SQLAlchemy. PostgreSQL is read through ADBC
(COPY in binary, 2.5 times as fast as a binary server-side cursor) where its driver is installed,
in the same snapshot.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from pipelines.extract.databases.any.types import in_words
from pipelines.extract.schema import SourceColumn
from pipelines.extract.source import FIRST_BATCH, rows_to_fetch
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift, SettingsError, SourceUnavailable

BATCH_BYTES = 4 << 20
"""Bytes held in memory at once by the fast path."""

# Python's calendar ends where PostgreSQL's goes on; infinity becomes its first or last moment.
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_DIGITS = "[0-9]"
_SQLITE_TIME = "-".join([_DIGITS * 4, _DIGITS * 2, _DIGITS * 2]) + " " + ":".join([_DIGITS * 2] * 3)
_DENIED = ("permission denied", "command denied", "not authorized", "InsufficientPrivilege")


@dataclass(frozen=True)
class Snapshot:
    """An open read-only transaction; see `open_snapshot`."""

    connection: sa.Connection
    shop: Shop
    address: sa.URL

    @property
    def dialect(self) -> str:
        """SQLAlchemy's name of the kind of database."""
        return self.connection.dialect.name

    @property
    def schema(self) -> str | None:
        """The declared schema; None where the kind of database knows none of that name."""
        name = self.shop.source.schema_name
        return None if name == "public" and self.dialect != "postgresql" else name

    def now(self) -> datetime:
        """The database's clock, in UTC."""
        clock = {
            "postgresql": "SELECT clock_timestamp()",
            "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')",
            "mysql": "SELECT utc_timestamp(6)",
            "mariadb": "SELECT utc_timestamp(6)",
        }.get(self.dialect)
        found: Any = self.connection.scalar(sa.text(clock) if clock else sa.select(sa.func.now()))
        moment: datetime = datetime.fromisoformat(found) if isinstance(found, str) else found
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def columns_of(self, table: str) -> dict[str, SourceColumn] | None:
        """A table's columns in the words of `drift`; None where there is no such table."""
        try:
            found = sa.inspect(self.connection).get_columns(table, self.schema)
        except sa.exc.NoSuchTableError:
            return None
        return {each["name"]: in_words(each["type"]) for each in found}

    def table(self, name: str) -> sa.TableClause:
        """A declared table with the types that the database gives its columns.

        Raises:
            SchemaDrift: it is gone.
        """
        try:
            found = sa.inspect(self.connection).get_columns(name, self.schema)
        except sa.exc.NoSuchTableError:
            raise SchemaDrift(f"{name} is declared, but the database has no such table") from None
        columns = [sa.column(each["name"], each["type"]) for each in found]
        return sa.table(name, *columns, schema=self.schema)

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

    def stream(
        self, table: str, query: sa.Select[Any], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a query whose columns are those of `schema`, in declared types.

        Raises:
            SchemaDrift: a value does not fit its declared type.
            SourceUnavailable: the connection broke.
        """
        fast = self._adbc(query) if self.dialect == "postgresql" else None
        if fast is not None:
            for columns in fast:
                yield _fitted(table, columns, schema)
            return
        # A buffer of its own would hold as many rows, however large they are.
        options = {"stream_results": True, "max_row_buffer": 1}
        with self.connection.execute(query, execution_options=options) as result:
            count = FIRST_BATCH
            while rows := result.fetchmany(count):
                batch = _fitted(table, list(zip(*rows, strict=True)), schema)
                yield batch
                count = rows_to_fetch(batch.num_rows, batch.nbytes)

    def selected(self, column: Any, kind: pa.DataType) -> Any:
        """How a column is asked for, so that its declared type is met exactly."""
        if pa.types.is_string(kind):
            return column if _plain_text(column.type) else sa.cast(column, _text_type(self.dialect))
        if self.dialect == "postgresql":
            return _from_postgres(column, kind)
        if self.dialect == "sqlite" and pa.types.is_decimal(kind):
            return sa.cast(column, sa.Text())
        if pa.types.is_floating(kind):
            # MySQL writes a FLOAT with six digits; as a DOUBLE it is written whole.
            mysql = self.dialect in ("mysql", "mariadb")
            whole = column * sa.literal_column("1e0") if mysql else column
            return sa.type_coerce(whole, sa.Float())
        if pa.types.is_boolean(kind):
            return sa.type_coerce(column, sa.Boolean())
        if self.dialect == "sqlite" and pa.types.is_timestamp(kind):
            return sa.type_coerce(column, sa.DateTime())
        if self.dialect == "sqlite" and pa.types.is_date(kind):
            return sa.type_coerce(column, sa.Date())
        return column

    def _adbc(self, query: sa.Select[Any]) -> Iterator[list[Any]] | None:
        try:
            from adbc_driver_postgresql import dbapi
        except ImportError:
            return None
        return self._copied(dbapi, query)

    def _copied(self, dbapi: Any, query: sa.Select[Any]) -> Iterator[list[Any]]:
        plain = self.address.set(drivername="postgresql").render_as_string(hide_password=False)
        shared = self.connection.scalar(sa.text("SELECT pg_export_snapshot()"))
        options = {"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
        literal = query.compile(self.connection, compile_kwargs={"literal_binds": True})
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
            raise _told(error, self.address) from error


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same, each fetched while the one before is worked on: the server need not wait."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


@contextlib.contextmanager
def open_snapshot(url: str, shop: Shop) -> Iterator[Snapshot]:
    """One transaction that sees one state of the shop's database and cannot write.

    PostgreSQL and MySQL/MariaDB: REPEATABLE READ, READ ONLY. SQLite: the file opened for reading
    only, one deferred transaction. Others: REPEATABLE READ, or else SERIALIZABLE, where they have
    it.

    Raises:
        SettingsError: the URL is none, or its driver is not installed.
        SourceUnavailable: the database does not answer.
        CaptureMissing: the account may not read.
    """
    engine, address = _engine(url)
    try:
        with engine.connect() as connection:
            _begin(connection)
            yield Snapshot(connection, shop, address)
    except sa.exc.DBAPIError as error:
        raise _told(error.orig or error, address) from error
    finally:
        engine.dispose()


def _engine(url: str) -> tuple[sa.Engine, sa.URL]:
    try:
        address = sa.make_url(url)
        if address.get_backend_name() == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
        opened = address
        if address.get_backend_name() == "sqlite" and address.database not in (None, ":memory:"):
            database = f"file:{quote(str(address.database))}"
            opened = address.set(database=database, query={"mode": "ro", "uri": "true"})
        return sa.create_engine(opened, poolclass=sa.NullPool), address
    except (sa.exc.ArgumentError, ImportError) as error:
        raise SettingsError(
            f"the connection of the shop's database cannot be used ({error}); write it as an "
            "SQLAlchemy URL, such as mysql+pymysql://user:password@host:3306/database, and "
            "install the driver that it names"
        ) from None


def _begin(connection: sa.Connection) -> None:
    dialect = connection.dialect.name
    if dialect == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
        return
    levels = connection.dialect.get_isolation_level_values(connection.connection.dbapi_connection)  # type: ignore[arg-type]
    level = next((each for each in ("REPEATABLE READ", "SERIALIZABLE") if each in levels), None)
    connection.rollback()
    options: dict[str, Any] = {"isolation_level": level} if level else {}
    if dialect == "postgresql":
        options["postgresql_readonly"] = True
    connection.execution_options(**options)
    if dialect in ("mysql", "mariadb"):
        connection.exec_driver_sql("SET time_zone = '+00:00'")
        connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    if dialect == "postgresql":
        connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")


def _told(error: BaseException, address: sa.URL) -> Exception:
    """A driver's error in Freshrank's words."""
    where = address.set(query={}).render_as_string(hide_password=True)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if any(sign in f"{type(error).__name__} {first}" for sign in _DENIED):
        return CaptureMissing(
            f"the account of {where} lacks a right ({first}); grant it SELECT on the declared "
            "tables, nothing more is needed"
        )
    known = isinstance(error, sqlite3.Error) or "OperationalError" in type(error).__name__
    return SourceUnavailable(
        f"the shop's database {where} {'does not answer' if known else 'gave up'} ({first}); "
        "start it or mend the connection, then run again"
    )


def _fitted(table: str, columns: list[Any], schema: pa.Schema) -> pa.RecordBatch:
    fitted = [_fit(table, field, each) for field, each in zip(schema, columns, strict=True)]
    return pa.record_batch(fitted, schema=schema)


def _fit(table: str, field: Any, values: Any) -> Any:
    try:
        if not isinstance(values, pa.Array):
            textual = pa.types.is_decimal(field.type) and any(isinstance(v, str) for v in values)
            values = pa.array(values, pa.string() if textual else field.type)
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        return values if values.type == field.type else pc.cast(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError) as error:
        raise SchemaDrift(
            f"{table}.{field.name} holds a value that does not fit its declared type "
            f"({error}); declare a wider type in `tables.{table}.columns.{field.name}`"
        ) from error


def _from_postgres(column: Any, kind: pa.DataType) -> Any:
    if pa.types.is_decimal(kind):
        scale = getattr(column.type, "scale", None)
        if isinstance(column.type, sa.Numeric) and scale is not None and scale <= kind.scale:
            return sa.cast(column, sa.Text())
        return sa.cast(sa.func.trim_scale(sa.cast(column, sa.Numeric())), sa.Text())
    if pa.types.is_floating(kind):
        return sa.cast(column, sa.Double())
    if pa.types.is_timestamp(kind):
        moment = sa.cast(column, sa.DateTime(timezone=True))
        return _within(moment, _FIRST, _LAST)
    if pa.types.is_date(kind):
        return _within(column, _FIRST.date(), _LAST.date())
    return column


def _within(column: Any, first: Any, last: Any) -> Any:
    return sa.case(
        (column < first, sa.literal(first)), (column > last, sa.literal(last)), else_=column
    )


def _plain_text(kind: Any) -> bool:
    return isinstance(kind, sa.String) and not isinstance(kind, (sa.Enum, sa.CHAR))


def _text_type(dialect: str) -> Any:
    return sa.CHAR() if dialect in ("mysql", "mariadb") else sa.Text()
