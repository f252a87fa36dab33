"""The ledger's database: every wait is bounded, and its errors, no others, get their names here."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any, Final

import sqlalchemy as sa

from pipelines.shared.errors import (
    FreshrankError,
    LedgerBusy,
    LedgerReadOnly,
    LedgerUnavailable,
    SettingsError,
)

CONNECT_S: Final = 30.0
"""For a connection, until it can be used; a server is given 10 s for each address."""
ANSWER_S: Final = 60.0
"""For the answer to a statement. The ledger's are small: a second is long already."""
LOCK_S: Final = 600.0
"""For a lock. Extraction holds its table's for as long as it reads, which whoever else wants the
table may as well try again after ten minutes."""

_READ_ONLY: Final = {"25006", "42501", 1142, 1290, 1792, 1836}
_BUSY: Final = {"55P03", "40P01", "40001", 1205, 1213}
_EXISTS: Final = {"42P07", 1050, 1061}
_WAIT: Final = "freshrank_wait_s"
_SESSION: Final = (
    "SET LOCAL lock_timeout = {}; SET LOCAL tcp_keepalives_idle = 60; "
    "SET LOCAL tcp_keepalives_interval = 10; SET LOCAL tcp_keepalives_count = 6"
)
"""The last three: the server ends the session, and frees the locks, of a client that vanished."""


class Database:
    """Transactions on the ledger's database.

    Args:
        url: SQLAlchemy URL of PostgreSQL, MySQL/MariaDB or SQLite.
        lock_s: how many seconds a lock is waited for.

    Raises:
        SettingsError: the URL is no SQLAlchemy URL.
    """

    def __init__(self, url: str, lock_s: float) -> None:
        self._lock_s = lock_s
        try:
            address = sa.make_url(url)
            self._engine = sa.create_engine(
                address,
                poolclass=sa.NullPool,
                pool_reset_on_return=None,
                connect_args=_arguments(address, lock_s),
            )
        except sa.exc.ArgumentError as error:
            raise SettingsError(
                "FRESHRANK_LEDGER_URL is no SQLAlchemy URL; write it as "
                "postgresql+psycopg://user:password@host:port/ledger"
            ) from error
        self._where = address.set(query={}).render_as_string(hide_password=True)
        sa.event.listen(self._engine, "handle_error", self._named)
        if self.dialect != "sqlite":
            sa.event.listen(self._engine, "before_cursor_execute", _begin_watch)
            sa.event.listen(self._engine, "after_cursor_execute", _end_watch)

    @property
    def dialect(self) -> str:
        """The database's kind: postgresql, mysql, mariadb or sqlite."""
        return self._engine.dialect.name

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction: committed when the block ends well; the block's own errors pass through.

        Raises:
            LedgerUnavailable: the database does not answer, or not in time.
            LedgerBusy: a lock stayed held.
            LedgerReadOnly: it takes no writes.
        """
        with contextlib.closing(self._connection()) as connection:
            begun = connection.begin()
            try:
                if self.dialect == "postgresql":
                    # Not at the start of the session, where a pooler would refuse or keep them.
                    connection.exec_driver_sql(_SESSION.format(int(self._lock_s * 1000)))
                yield connection
            except BaseException:
                _unwatch(connection)  # An interrupted statement has no event of its end.
                with contextlib.suppress(FreshrankError, sa.exc.SQLAlchemyError):
                    self._watched(connection, begun.rollback)
                raise
            self._watched(connection, begun.commit)

    def lock(self, connection: sa.Connection, statement: sa.Update) -> None:
        """Execute a statement that waits for a lock."""
        wait_s = self._lock_s + ANSWER_S
        connection.execute(statement, execution_options={_WAIT: wait_s})

    def _connection(self) -> sa.Connection:
        if self.dialect == "sqlite":
            return self._engine.connect()
        # In a thread of its own: a server that sends a byte now and then outlives every timeout
        # of a driver.
        answers: SimpleQueue[sa.Connection | BaseException] = SimpleQueue()

        def connect() -> None:
            try:
                answers.put(self._engine.connect())
            except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
                answers.put(error)

        threading.Thread(target=connect, name="ledger connect", daemon=True).start()
        try:
            answer = answers.get(timeout=CONNECT_S)
        except Empty:
            raise self._unavailable(f"no connection within {CONNECT_S:g} s") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _watched(self, connection: sa.Connection, end: Any) -> None:
        """Commit or roll back, for which SQLAlchemy has no event afterwards."""
        if self.dialect == "sqlite" or connection.invalidated:
            end()
            return
        _watch(connection, ANSWER_S)
        try:
            end()
        finally:
            _unwatch(connection)

    def _named(self, context: sa.engine.ExceptionContext) -> FreshrankError | None:
        """Freshrank's error for one of the database's own; None for a fault of a statement."""
        error, wrapped = context.original_exception, context.sqlalchemy_exception
        connection = context.connection
        overdue = None
        if connection is not None and self.dialect != "sqlite":
            overdue = _unwatch(connection)
        if overdue:
            return self._unavailable(f"no answer within {overdue:g} s")
        if not isinstance(wrapped, sa.exc.DBAPIError):
            return None
        code, text = _read(error)
        if code in _EXISTS or text.endswith("already exists"):
            return None
        if code in _READ_ONLY or "readonly database" in text:
            return LedgerReadOnly(
                f"the ledger at {self._where} takes no writes ({text}); point FRESHRANK_LEDGER_URL "
                "at the primary server, or give its account (of SQLite: the file and its folder) "
                "the right to write and, once a version, to create tables"
            )
        if code in _BUSY or "is locked" in text:
            return LedgerBusy(
                f"a lock of the ledger at {self._where} was not free within {self._lock_s:g} s "
                f"({text}): another process works on the same; try again when it is done, or, if "
                "it hangs, end it and its session at the database"
            )
        if isinstance(
            context.sqlalchemy_exception, sa.exc.OperationalError | sa.exc.InterfaceError
        ):
            return self._unavailable(text)
        return None

    def _unavailable(self, why: str) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"the ledger at {self._where} does not answer ({why}); start it (`make up`) or mend "
            "FRESHRANK_LEDGER_URL, then clear the task"
        )


def _arguments(address: sa.URL, lock_s: float) -> dict[str, Any]:
    """What the driver is given where the URL does not say it."""
    wait = f"SET SESSION innodb_lock_wait_timeout = {max(1, int(lock_s))}"
    of_mysql = {"connect_timeout": 10, "init_command": wait}
    arguments: dict[str, dict[str, Any]] = {
        "sqlite": {"timeout": lock_s},
        "postgresql": {"connect_timeout": 10},
        "mysql": of_mysql,
        "mariadb": of_mysql,
    }
    ours = arguments.get(address.get_backend_name(), {})
    return {name: value for name, value in ours.items() if name not in address.query}


def _read(error: BaseException) -> tuple[str | int | None, str]:
    """PostgreSQL's SQLSTATE or MySQL's number of an error, and its first line."""
    first = error.args[0] if error.args else None
    if isinstance(first, int):
        return first, str(error.args[-1])
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return getattr(error, "sqlstate", None), line


def _begin_watch(connection: sa.Connection, *arguments: Any) -> None:
    context = arguments[3]
    _watch(connection, context.execution_options.get(_WAIT, ANSWER_S) if context else ANSWER_S)


def _end_watch(connection: sa.Connection, *arguments: Any) -> None:
    del arguments
    _unwatch(connection)


def _watch(connection: sa.Connection, seconds: float) -> None:
    """Cut the connection unless `_unwatch` is called in time."""
    info, driver = connection.info, connection.connection.dbapi_connection

    def cut() -> None:
        info["overdue"] = seconds
        _shut(driver)

    info["watch"] = threading.Timer(seconds, cut)
    info["watch"].daemon = True
    info["watch"].start()


def _unwatch(connection: sa.Connection) -> float | None:
    """End the watch; the seconds after which it cut the connection, if it did."""
    if connection.invalidated:
        return None
    if watch := connection.info.pop("watch", None):
        watch.cancel()
    overdue: float | None = connection.info.get("overdue")
    return overdue


def _shut(driver: Any) -> None:
    """End a connection's traffic in both directions: whoever waits on it is woken."""
    holder = driver if hasattr(driver, "fileno") else driver._sock
    with (
        contextlib.suppress(OSError, AttributeError),
        socket.socket(fileno=os.dup(holder.fileno())) as other,
    ):
        other.shutdown(socket.SHUT_RDWR)
