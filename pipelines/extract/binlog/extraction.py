"""One extraction of one table from the binlog: its position, and row events as stored rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import pyarrow as pa
from pymysqlreplication.row_event import DeleteRowsEvent, WriteRowsEvent

from pipelines.extract.binlog.stream import FRESH_SNAPSHOT, Log, Place, created
from pipelines.extract.databases.mysql import catalogue
from pipelines.extract.databases.mysql.connection import connect, variables
from pipelines.extract.databases.mysql.types import unfit
from pipelines.extract.databases.mysql.values import array
from pipelines.extract.databases.values import arrays
from pipelines.extract.source import change_schema
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift

Row = tuple[Any, ...]
"""The stored columns of a row, in their order."""


class Extraction:
    """What following the log and a first snapshot share; rows stay at the server until read."""

    def __init__(self, url: str, shop: Shop, table: str, key: bytes, connection: Any) -> None:
        self.url, self.shop, self.table, self.connection = url, shop, table, connection
        self.declared = shop.tables[table]
        self.stored = list(self.declared.stored_columns())
        self.columns = catalogue.columns_of(connection, shop.source.schema_name, table)
        self.schema = change_schema(self.declared)
        self.key_of = _getter([self.stored.index(name) for name in self.declared.key])
        """The key of a stored row."""
        known = variables(connection, ["server_id", "server_uuid"])
        self.position: dict[str, Any] = {
            "snapshot": shop.source.snapshot,
            # In MariaDB the server id is all that tells this server from another.
            "server": str(known.get("server_uuid") or known["server_id"]),
        }
        """Where the next extraction goes on, once all changes were read."""
        self._key = key
        self._row_of = _getter(self.stored)
        self._fitted: Any = None
        self._created: dict[str, str] = {}

    def log(self, start: Place) -> Log:
        """The log from a place on."""
        return Log(self.url, self.shop.source.schema_name, self.table, start)

    def reached(self, place: Place, gtid: str) -> None:
        """Move the position on to a place."""
        self.position |= {
            "file": place.file,
            "created": self.created(place.file),
            "offset": place.offset,
            "gtid": gtid,
        }

    def created(self, file: str) -> str:
        """When a log file was begun, as an ISO time."""
        if file not in self._created:
            self._created[file] = created(self.url, file).isoformat()
        return self._created[file]

    def arrays(self, rows: Sequence[Row]) -> list[Any]:
        """Stored rows as one Arrow array a column, pseudonyms in place, and the misfits."""
        return arrays(
            self.declared, rows, self._key,
            lambda column, values, kind: array(values, kind, self.columns[column]),
        )  # fmt: skip

    def batch(self, arrays: list[Any], ops: Any, times: Any, transactions: Any) -> pa.RecordBatch:
        """A batch of changes, numbered on from the last one."""
        begin = self.position["last"] + 1
        self.position["last"] += len(ops)
        places = pa.array(range(begin, begin + len(ops)), pa.int64())
        return pa.record_batch([*arrays, ops, times, places, transactions], schema=self.schema)

    def images(self, event: Any) -> Iterator[tuple[Row | None, Row | None]]:
        """The stored columns of each row of an event, before and after.

        Raises:
            CaptureMissing: the event does not hold whole rows.
            SchemaDrift: its columns do not fit the declared ones, or a value cannot be read.
        """
        self._require_columns(event)
        try:
            rows = event.rows
        except (UnicodeDecodeError, NotImplementedError, ValueError) as error:
            raise SchemaDrift(
                f"{self.table} holds a value that cannot be read from the binlog ({error}); "
                "change the type of its column, in which no log can be read"
            ) from error
        stored = self._row_of
        if isinstance(event, WriteRowsEvent):
            return ((None, stored(row["values"])) for row in rows)
        if isinstance(event, DeleteRowsEvent):
            return ((stored(row["values"]), None) for row in rows)
        return ((stored(row["before_values"]), stored(row["after_values"])) for row in rows)

    def _require_columns(self, event: Any) -> None:
        """Make sure that the row was written with the declared columns, all of them logged."""
        if self._fitted is not event.columns:
            self._fit_columns({each.name: each for each in event.columns})
            self._fitted = event.columns
        images = [event.columns_present_bitmap, getattr(event, "columns_present_bitmap2", b"")]
        count = event.number_of_columns
        for image in images:
            if image and int.from_bytes(image, "little").bit_count() < count:
                raise CaptureMissing(
                    f"changes of {self.table} were logged in part (binlog_row_image was not FULL "
                    f"in that session); let no account change it, then {FRESH_SNAPSHOT}"
                )

    def _fit_columns(self, logged: dict[str, Any]) -> None:
        """Make sure that rows with these columns are rows of the table as it is declared.

        A column that was added later is null in them. That it is so, and that none was renamed,
        shows in that the table still has every column that they have.
        """
        later = [name for name in self.stored if name not in logged]
        whole = logged.keys() <= self.columns.keys()
        if later and not (whole and self._generated().isdisjoint(later)):
            raise SchemaDrift(
                f"{self.table}.{later[0]} is declared, but changes in the binlog are from "
                f"when the table had no such column, or the server did not log its name "
                f"(binlog_row_metadata was not FULL); {FRESH_SNAPSHOT}"
            )
        for name in self.stored:
            kind = self.declared.columns[name]
            if name in logged and name not in self.declared.personal:
                then = catalogue.logged(logged[name])
                same = kind == "uuid" and then.type == "varbinary"  # As the log has it.
                if not same and (wrong := unfit(kind, then)):
                    raise SchemaDrift(
                        f"{self.table}.{name} is declared {kind}, but changes in the binlog are "
                        f"from when it was {then.written}, {wrong}; {FRESH_SNAPSHOT}"
                    )
        stored = self.stored
        self._row_of = _getter(stored) if not later else lambda row: tuple(map(row.get, stored))

    def _generated(self) -> set[str]:
        """Columns that no log carries."""
        with connect(self.url, "binlog") as connection:
            return catalogue.generated(connection, self.shop.source.schema_name, self.table)


def _getter(names: Sequence[Any]) -> Callable[[Any], Row]:
    """Takes several items of a row, always as a tuple."""
    if len(names) == 1:
        return lambda row: (row[names[0]],)
    return itemgetter(*names)
