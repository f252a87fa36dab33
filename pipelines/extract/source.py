"""The port between extraction and a database: what every capture mode offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa

from pipelines.extract.pseudonyms import key_for
from pipelines.shared.columns import COMMITTED_AT, MISFITS, OP, POSITION, TRANSACTION
from pipelines.shared.declaration import Shop, Table
from pipelines.shared.errors import CaptureMissing
from pipelines.shared.settings import Settings

BATCH = 20_000
"""Rows of a change source held in memory at once,"""
BATCH_BYTES = 16 << 20
"""or about so many bytes of them, estimated from the rows before."""
FIRST_BATCH = 16
"""Rows of the first batch, while their size is not known yet."""

AHEAD = timedelta(days=1)
"""A change stamped later than this beyond the clock comes of a wrong clock or column."""
NAMED = 5
"""How many such changes of a table are named."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INSTALL = "run `python -m pipelines capture install`"
"""The way out where changes are not captured."""

Position = Mapping[str, Any]
"""Which changes were extracted: JSON-able, for the source that gave it and for nobody else."""


@dataclass(frozen=True)
class ChangeBatch:
    """The changes of one extraction; they can be read once, inside the `changes` block."""

    position: Position
    """The position after these changes. Record it once the rows are durable, never before."""
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    """In the order of `_position`, with the columns of `schema`."""


def rows_to_fetch(rows: int, size: int) -> int:
    """How many rows to fetch after `rows` rows of `size` bytes in all; at most twice as many."""
    return max(1, min(BATCH, 2 * rows, BATCH_BYTES * rows // max(1, size)))


def microseconds(moment: datetime) -> int:
    """A time in microseconds since 1970, UTC."""
    return (moment - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class StampedAhead:
    """A change whose commit time lies beyond `AHEAD`: it waits for an interval far away."""

    table: str
    key: str
    at: str

    @staticmethod
    def of(shop: Shop, table: str, key: Sequence[Any], at: object) -> StampedAhead:
        """One of a table, with the values of its key; personal ones are not shown."""
        declared = shop.tables[table]
        shown = (
            "(personal)" if n in declared.personal else str(v)
            for n, v in zip(declared.key, key, strict=True)
        )
        return StampedAhead(table, ", ".join(shown), str(at))

    def __str__(self) -> str:
        return f"{self.table} {self.key} at {self.at}"


class ChangeSource(Protocol):
    """A shop's database, as extraction sees it."""

    def clock(self) -> datetime:
        """The time in the shop.

        Raises:
            SourceUnavailable: the database cannot be reached.
        """

    def check(self, table: str) -> None:
        """Make sure that the table is as declared and that its changes are captured.

        Raises:
            SchemaDrift: the table or a column is missing, new, or of another type.
            CaptureMissing: changes are not, or not all, captured.
            SettingsError: a column is to be pseudonymised and there is no key.
            SourceUnavailable: the database cannot be reached.
        """

    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> AbstractContextManager[ChangeBatch]:
        """Read every visible change committed before a time that was not extracted yet.

        Args:
            before: the end of the interval, itself left out.
            after: the position of the extraction before; None reads everything.
            upto: read only what the extraction that ended at this position saw.

        A value that its declared type cannot hold is null, and named in `_misfits`.

        Raises:
            SourceUnavailable: the database cannot be reached.
        """


class DatabaseSource:
    """What the sources of all capture modes share; the settings bring the key of the pseudonyms."""

    def __init__(self, url: str, shop: Shop, settings: Settings) -> None:
        self._url, self._shop, self._settings = url, shop, settings

    def _key(self, table: str) -> bytes:
        return key_for(self._settings, table, self._shop.tables[table])

    @staticmethod
    def from_another_mode(table: str) -> CaptureMissing:
        """The error that a position was given by another capture mode."""
        return CaptureMissing(
            f"the last position of {table} comes from another capture mode; go back to it in "
            "shop.yaml, or start afresh with an empty lake and ledger"
        )


def change_schema(table: Table) -> pa.Schema:
    """Columns of `changes/<table>`: the stored ones, what did not fit them, the change's own."""
    return pa.schema(
        [
            *table.stored_columns().items(),
            (MISFITS, pa.string()),
            (OP, pa.string()),
            (COMMITTED_AT, pa.timestamp("us", tz="UTC")),
            (POSITION, pa.int64()),
            (TRANSACTION, pa.int64()),
        ]
    )
