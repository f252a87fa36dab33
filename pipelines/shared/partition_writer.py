"""Writes the partitions of a Delta table, each whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
from deltalake import ColumnProperties, WriterProperties, write_deltalake

from pipelines.shared.columns import INTERVAL
from pipelines.shared.errors import LakeFull
from pipelines.shared.intervals import Interval

_ROW_GROUP: Final = 1 << 17
"""Rows that a writer holds in memory at once; delta-rs itself holds a million."""
_CHECKPOINT: Final = 10
"""Commits between checkpoints; opening a table replays the log after the last one."""


def create_table(uri: str, schema: pa.Schema) -> None:
    """Create an empty table; one that another writer created first stays as it is.

    Args:
        schema: of its rows, without `interval_start`.
    """
    with contextlib.suppress(FileExistsError):
        write_deltalake(
            uri, _keyed(schema).empty_table(), partition_by=[INTERVAL],
            mode="ignore", configuration={"delta.checkpointInterval": str(_CHECKPOINT)},
        )  # fmt: skip


def write_partition(uri: str, interval: Interval, rows: pa.RecordBatchReader) -> int:
    """Replace an interval's partition of a table.

    Args:
        uri: the table's address.
        rows: any columns but `interval_start`, which is added.

    Returns:
        Number of rows stored.

    Raises:
        LakeFull: there is no room for the rows; the partition stays as it was.
        CommitFailedError: another writer changed the partition meanwhile.
        Exception: whatever reading from the reader raised; the partition stays as it was.
    """
    keyed = _KeyedRows(rows, interval.key)
    try:
        write_deltalake(
            uri,
            keyed.reader(),
            mode="overwrite",
            predicate=f"{INTERVAL} = '{interval.key}'",
            schema_mode="merge",
            writer_properties=_properties(keyed.schema),
        )
    except Exception as cause:
        # Delta's own error hides the one that the reader raised.
        error = keyed.error or cause
        if os.strerror(errno.ENOSPC) in str(error):
            raise LakeFull(
                f"{uri}: no room for the rows of {interval} ({error}); make room on its disk "
                "(`python -m pipelines maintain` deletes what no table needs), then run again"
            ) from error
        raise error from cause
    return keyed.rows


def _properties(schema: pa.Schema) -> WriterProperties:
    """Dictionaries for texts only: for numbers they cost more time than they save."""
    texts = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    return WriterProperties(
        max_row_group_size=_ROW_GROUP,
        default_column_properties=ColumnProperties(dictionary_enabled=False),
        column_properties={name: ColumnProperties(dictionary_enabled=True) for name in texts},
    )


def _keyed(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field(INTERVAL, pa.string()))


class _KeyedRows:
    """Rows with the partition's key added, their number, and the error of reading them."""

    def __init__(self, source: pa.RecordBatchReader, key: str) -> None:
        self._source, self._key = source, key
        self.schema = _keyed(source.schema)
        self.rows = 0
        self.error: Exception | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._source:
                self.rows += batch.num_rows
                key = pa.repeat(pa.scalar(self._key), batch.num_rows)
                yield pa.record_batch([*batch.columns, key], schema=self.schema)
        except Exception as error:
            self.error = error
            raise
