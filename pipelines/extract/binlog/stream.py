"""Reads the row binlog of a MySQL or MariaDB server from one place to another.

The log is a row of files. Each transaction in it begins with a GTID event whose header carries
the second in which its COMMIT began (in MySQL also without GTIDs: an anonymous one), and lies in
one file as a whole. https://mariadb.com/kb/en/replication-protocol/ and
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication.html
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import total_ordering
from typing import Any

import pymysql
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.constants import BINLOG
from pymysqlreplication.event import FormatDescriptionEvent, QueryEvent, RotateEvent
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from pipelines.extract.databases.mysql.connection import (
    is_mariadb,
    options,
    rows,
    translate_errors,
    where,
)
from pipelines.shared.errors import CaptureMissing, SchemaDrift, SourceUnavailable

HEADER = 4
"""Offset of the first event in a file."""
FRESH_SNAPSHOT = (
    "raise `snapshot` of its source in the shop's shop.yaml by one: the next extraction takes a "
    "fresh snapshot of every table of it"
)
"""The way out where the log is gone or cannot be followed."""

_LOG_GONE = 1236

_BEGINS = {BINLOG.GTID_LOG_EVENT, BINLOG.ANONYMOUS_GTID_LOG_EVENT, BINLOG.MARIADB_GTID_EVENT}
_ROWS = (WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent)
_PARTIAL = BINLOG.PARTIAL_UPDATE_ROWS_EVENT
_COMPRESSED = {40, *range(165, 172)}
"""MySQL's compressed transactions; MariaDB's compressed statements and rows."""

_COMMENT = re.compile(r"/\*(?!!).*?\*/|^\s*--[^\n]*\n", re.DOTALL | re.MULTILINE)
_WRITES = re.compile(r"^(INSERT|REPLACE|UPDATE|DELETE|LOAD|WITH|CALL)\b", re.IGNORECASE)
_ENDS = re.compile(
    r"^(TRUNCATE\b|DROP\s+TABLE\b|RENAME\s+TABLES?\b|CREATE\s+OR\s+REPLACE\s+TABLE\b"
    r"|ALTER\s+(ONLINE\s+|IGNORE\s+)*TABLE\b.*\b("
    r"RENAME(?!\s+(COLUMN|INDEX|KEY)\b)|(TRUNCATE|DROP|EXCHANGE|CONVERT)\s+PARTITION)\b)",
    re.IGNORECASE | re.DOTALL,
)
_DROPS_SCHEMA = re.compile(r"^DROP\s+(DATABASE|SCHEMA)\b", re.IGNORECASE)


@total_ordering
@dataclass(frozen=True)
class Place:
    """An offset in a log file, always between two events."""

    file: str
    offset: int

    @property
    def number(self) -> int:
        """The file's number, by which files follow each other."""
        return int(self.file.rsplit(".", 1)[-1])

    @property
    def as_int(self) -> int:
        """The place as an int64 that grows along the log: number and 32 bits of offset."""
        return self.number << 32 | self.offset

    def __lt__(self, other: Place) -> bool:
        return self.as_int < other.as_int


@dataclass(frozen=True)
class Begin:
    """A transaction begins at `place`; it was committed at `at`, a whole second."""

    place: Place
    at: datetime
    gtid: str


class Log:
    """The log from a place between two transactions on, seen by one table."""

    def __init__(self, url: str, schema: str, table: str, start: Place) -> None:
        self._url, self._schema, self._table = url, schema, table
        self.place = start
        """Where the last event read ended."""
        self.strict = True
        """Whether what cannot be followed is refused."""
        self._touched = False

    def events(self, end: Place) -> Iterator[Any]:
        """Every `Begin` before `end`, each followed by the table's row events.

        Raises:
            CaptureMissing: part of the log is gone, or changes came in a form that cannot be read.
            SchemaDrift: the table was emptied, dropped or renamed.
            SourceUnavailable: the server does not answer, or the log ends before `end`.
        """
        with _open(self._url, self.place, self._schema, self._table) as reader:
            while self.place < end and (event := reader.fetchone()) is not None:
                if not isinstance(event, RotateEvent) and event.packet.log_pos:
                    offset = event.packet.log_pos
                    if event.event_type in _BEGINS:
                        self._touched = False
                        start = Place(reader.log_file, offset - event.packet.event_size)
                        yield Begin(start, seconds(event.timestamp), getattr(event, "gtid", ""))
                    self.place = Place(reader.log_file, offset)
                if self.strict:
                    self._refuse(event)
                if isinstance(event, _ROWS):
                    self._touched = True
                    yield event
        if self.place < end:
            raise SourceUnavailable(
                f"the binlog came to its end at {self.place.file}:{self.place.offset} instead of "
                f"{end.file}:{end.offset}; run again"
            )

    def _refuse(self, event: Any) -> None:
        """Refuse what cannot be followed."""
        form = ""
        if isinstance(event, QueryEvent):
            self._refuse_statement(event)
        elif event.event_type in _COMPRESSED:
            form = "compressed events"
        elif event.event_type == _PARTIAL:
            form = "partial JSON updates"
        elif event.event_type == BINLOG.XA_PREPARE_EVENT and self._touched:
            form = f"an XA transaction on {self._table}"
        if form:
            raise CaptureMissing(
                f"the binlog after {self.place.file}:{self.place.offset} holds {form}, which "
                "cannot be read; do without (see docs/bring-your-own-shop.md), then "
                f"{FRESH_SNAPSHOT}"
            )

    def _refuse_statement(self, event: Any) -> None:
        """Refuse a statement after which the rows captured are not the table's any more."""
        text = _COMMENT.sub(" ", event.query).strip()
        here = event.schema.decode() == self._schema
        if _DROPS_SCHEMA.match(text) and _names(self._schema, text):
            what = "dropped"
        elif not self._names_table(text, here):
            return
        elif _WRITES.match(text):
            raise CaptureMissing(
                f"{self._table} was written to by a statement in the binlog at "
                f"{self.place.file}:{self.place.offset} (binlog_format was not ROW in that "
                f"session); let no account change it, then {FRESH_SNAPSHOT}"
            )
        elif _ENDS.match(text):
            what = "emptied, dropped, renamed or replaced"
        else:
            return
        raise SchemaDrift(
            f"{self._schema}.{self._table} was {what} ({' '.join(text.split())[:80]!r} at "
            f"{self.place.file}:{self.place.offset}), and the binlog does not say which rows went "
            f"with it; {FRESH_SNAPSHOT}"
        )

    def _names_table(self, text: str, here: bool) -> bool:
        """Whether a statement names the table, with or without its database."""
        name = rf"(?<![\w$`])`?{re.escape(self._table)}`?(?![\w$])"
        whole = rf"(?<![\w$`])`?{re.escape(self._schema)}`?\s*\.\s*`?{re.escape(self._table)}`?"
        if re.search(rf"{whole}(?![\w$])", text, re.IGNORECASE):
            return True
        return here and bool(re.search(rf"(?<!\.)(?<!\.`){name}", text, re.IGNORECASE))


def status(connection: Any) -> tuple[Place, str, str]:
    """Where the binlog ends now, and the lists `binlog_do_db` and `binlog_ignore_db`."""
    statement = "SHOW MASTER STATUS"
    version = connection.get_server_info().split(".")
    if not is_mariadb(connection) and (int(version[0]), int(version[1])) >= (8, 2):
        statement = "SHOW BINARY LOG STATUS"
    row = rows(connection, statement)[0]
    return Place(str(row[0]), int(row[1])), str(row[2] or ""), str(row[3] or "")


def log_end(connection: Any) -> Place:
    """Where the binlog ends now, always between two transactions."""
    return status(connection)[0]


def log_files(connection: Any) -> list[str]:
    """The binlog files that the server still has, oldest first."""
    return [str(row[0]) for row in rows(connection, "SHOW BINARY LOGS")]


def created(url: str, file: str) -> datetime:
    """When a log file was begun: with its name, what tells it from one of another history.

    Raises:
        CaptureMissing: the file is gone, or the right to replicate is missing.
        SourceUnavailable: the server does not answer.
    """
    with _open(url, Place(file, HEADER)) as reader:
        while (event := reader.fetchone()) is not None:
            if isinstance(event, FormatDescriptionEvent):
                return seconds(event.timestamp)
    raise SourceUnavailable(f"the binlog file {file} has no first event; run again")


def seconds(timestamp: int) -> datetime:
    """The time in an event's header."""
    return datetime.fromtimestamp(timestamp, UTC)


@contextmanager
def _open(url: str, start: Place, schema: str = "", table: str = "") -> Iterator[Any]:
    """A reader that never goes on by itself after the server cut its connection."""
    connections = 2  # one for the log, one for the reader's own questions

    def connect(**settings: Any) -> Any:
        nonlocal connections
        connections -= 1
        if connections < 0:
            raise pymysql.OperationalError(2013, "it cut the connection while its log was read")
        return pymysql.connect(**settings)

    with translate_errors(url, "binlog"):
        try:
            reader = BinLogStreamReader(
                connection_settings=options(url, "binlog"),
                server_id=2**31 + secrets.randbelow(2**31),
                log_file=start.file,
                log_pos=start.offset,
                resume_stream=True,
                blocking=False,
                only_schemas=[schema],
                only_tables=[table],
                filter_non_implemented_events=False,
                enable_logging=False,
                pymysql_wrapper=connect,
            )
            with closing(reader):
                yield reader
        except pymysql.MySQLError as error:
            if error.args[:1] != (_LOG_GONE,):
                raise
            raise CaptureMissing(
                f"{where(url)} no longer has the part of its binlog that is needed "
                f"({error.args[-1]}); {FRESH_SNAPSHOT}"
            ) from error


def _names(name: str, text: str) -> bool:
    return bool(re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text, re.IGNORECASE))
