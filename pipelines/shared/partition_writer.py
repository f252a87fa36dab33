"""Writes the partitions of a Delta table: each whole or not at all, and then on the disk.

Object stores promise that what was written is durable. A local disk does not until it is told:
delta-rs leaves that out, while the database syncs the manifest that says "it is there".
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
from deltalake import ColumnProperties, DeltaTable, WriterProperties, write_deltalake

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
        uri: the table's address.
        schema: of its rows, without `interval_start`.
    """
    with contextlib.suppress(FileExistsError):
        write_deltalake(
            uri, _keyed(schema).empty_table(), partition_by=[INTERVAL],
            mode="ignore", configuration={"delta.checkpointInterval": str(_CHECKPOINT)},
        )  # fmt: skip


def write_partition(
    uri: str, table: DeltaTable, interval: Interval, rows: pa.RecordBatchReader
) -> int:
    """Replace an interval's partition of a table.

    Args:
        uri: the table's address.
        table: the table, just opened; it is at the new version afterwards.
        rows: any columns but `interval_start`, which is added.

    Returns:
        Number of rows stored.

    Raises:
        LakeFull: there is no room for the rows; the partition stays as it was.
        CommitFailedError: another writer changed the partition meanwhile.
        Exception: whatever reading from the reader raised; the partition stays as it was.
    """
    keyed = _KeyedRows(rows, interval.key)
    before = table.version()
    try:
        write_deltalake(
            table,
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
    # The version that created the table has not been synced yet either.
    _sync_commits(uri, before + 1 if before else 0, table.version())
    return keyed.rows


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's entries, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_commits(uri: str, first: int, last: int) -> None:
    """Sync the files that some versions of a local table added, the versions, and their folders."""
    if "://" in uri:
        return
    root = Path(uri)
    log = root / "_delta_log"
    entries = [log / f"{version:020}.json" for version in range(first, last + 1)]
    entries = [entry for entry in entries if entry.is_file()]
    actions = [
        json.loads(line)
        for entry in entries
        for line in entry.read_text(encoding="utf-8").splitlines()
    ]
    added = [root / unquote(each["add"]["path"]) for each in actions if "add" in each]
    # A file of an earlier one of these versions may have been replaced and vacuumed since.
    files = [each for each in added if each.is_file()]
    folders = {each.parent for each in (*files, *entries)} | {root}
    for path in (*files, *entries, *sorted(folders)):
        sync(path)


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
