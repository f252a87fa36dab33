"""The lake: Delta tables in which every interval is one partition that is replaced whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import ColumnProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from pipelines.shared.columns import COMMITTED_AT, INTERVAL, OP, POSITION, REASONS
from pipelines.shared.errors import CorruptPartition, LakeFull
from pipelines.shared.intervals import Interval

KEEP_FILES: Final = timedelta(days=7)
"""How long a file stays that no table needs any more: longer than any reader reads."""
SMALL_FILE: Final = 100_000_000
"""Bytes; files below are merged."""
_ROW_GROUP: Final = 1 << 17
"""A writer holds a row group in memory: a million rows, unless told."""
_ATTEMPTS: Final = 5
"""How often a write begins anew because another one changed the same partition first."""
_CHECKPOINT: Final = 10
"""Writes after which a table's log is summed up: what follows is read anew at every opening."""

Partitions = list[tuple[str, str, str | list[str]]]
"""Conditions that a partition's key meets: column, comparison, value."""


def in_source_order(rows: pa.Table) -> pa.Table:
    """Changes in the order of their source, the order in which manifests hash them.

    A position may be shared by several changes: the other columns settle their order.
    """
    first = [POSITION, COMMITTED_AT, OP]
    rest = [name for name in rows.column_names if name not in (*first, REASONS)]
    return rows.sort_by([(name, "ascending") for name in (*first, *rest)])


class Lake:
    """The tables of one shop.

    Args:
        root: folder or object-store URL; the shop's tables lie below `<root>/<shop>/`.
        shop: the shop's name.
    """

    def __init__(self, root: str, shop: str) -> None:
        self._root = f"{root.rstrip('/')}/{shop}"

    def uri(self, table: str) -> str:
        """Address of a table."""
        return f"{self._root}/{table}"

    @property
    def local_root(self) -> Path:
        """The shop's folder, for artifacts that are files."""
        return Path(self._root)

    def _open(self, table: str) -> DeltaTable | None:
        try:
            return DeltaTable(self.uri(table))
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise CorruptPartition(
                f"{self.uri(table)}: the table's log is damaged ({error}); bring the folder "
                "`_delta_log` back from a backup of the lake"
            ) from error

    def exists(self, table: str) -> bool:
        """Whether the table was ever written."""
        return self._open(table) is not None

    def version(self, table: str) -> int | None:
        """The table's Delta version; None where it was never written."""
        found = self._open(table)
        return None if found is None else int(found.version())

    def replace(self, table: str, interval: Interval, rows: pa.Table | pa.RecordBatchReader) -> int:
        """Make `rows` the interval's partition, whole or not at all.

        Args:
            rows: any columns but `interval_start`, which is added. An empty table empties
                the partition. A reader is written as it is read, in bounded memory; only a
                table is written anew when another writer changed the partition meanwhile.

        Returns:
            Number of rows stored.

        Raises:
            LakeFull: there is no room for the rows; the partition stays as it was.
            Exception: whatever reading from a reader raised; the partition stays as it was.
        """
        if not isinstance(rows, pa.Table):
            return self._replace(table, interval, rows)
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(CommitFailedError):
                return self._replace(table, interval, rows.to_reader())
        return self._replace(table, interval, rows.to_reader())

    def _replace(self, table: str, interval: Interval, rows: pa.RecordBatchReader) -> int:
        pieces = _Keyed(rows, interval.key)
        if self._open(table) is None:
            # A first write that loses the race to another one falls through to the overwrite.
            with contextlib.suppress(FileExistsError):
                write_deltalake(
                    self.uri(table), pieces.schema.empty_table(), partition_by=[INTERVAL],
                    mode="ignore", configuration={"delta.checkpointInterval": str(_CHECKPOINT)},
                )  # fmt: skip
        try:
            write_deltalake(
                self.uri(table),
                pieces.reader(),
                mode="overwrite",
                predicate=f"{INTERVAL} = '{interval.key}'",
                schema_mode="merge",
                writer_properties=_writer(pieces.schema),
            )
        except Exception as cause:
            # Delta's own error hides the one that the reader raised.
            error = pieces.error or cause
            if os.strerror(errno.ENOSPC) in str(error):
                raise LakeFull(
                    f"{self.uri(table)}: no room for the rows of {interval} ({error}); make room "
                    "on its disk (`python -m pipelines maintain` deletes what no table needs), "
                    "then run again"
                ) from error
            raise error from cause
        return pieces.rows

    def columns(self, table: str) -> list[str]:
        """The table's columns.

        Raises:
            KeyError: the table was never written.
        """
        return [field.name for field in self._written(table).schema().fields]

    def dataset(self, table: str, partitions: Partitions | None = None) -> pads.Dataset:
        """The table, or some of its partitions, as an Arrow dataset, for DuckDB and filters.

        Raises:
            KeyError: the table was never written.
        """
        found = self._written(table)
        dataset: pads.Dataset = found.to_pyarrow_dataset(file_pruning_predicate=partitions)
        return dataset

    def _written(self, table: str) -> DeltaTable:
        found = self._open(table)
        if found is None:
            raise KeyError(table)
        return found

    def read(
        self,
        table: str,
        intervals: Iterable[Interval | str] | None = None,
        columns: list[str] | None = None,
        where: pc.Expression | None = None,
        between: tuple[str, str] | None = None,
    ) -> pa.Table:
        """Read a table, or some of its partitions; the others' number does not matter.

        Args:
            between: only partitions whose key lies in `[first, last)`.
            where: only rows for which this holds; the others are never held in memory.

        Returns:
            The rows, without a promised order.

        Raises:
            KeyError: the table was never written.
            CorruptPartition: a file of it is damaged or missing.
        """
        chosen: Partitions = []
        if intervals is not None:
            keys = [part if isinstance(part, str) else part.key for part in intervals]
            chosen.append((INTERVAL, "in", keys))
        if between is not None:
            chosen += [(INTERVAL, ">=", between[0]), (INTERVAL, "<", between[1])]
        with self._damage_told(table):
            return self.dataset(table, chosen or None).to_table(columns=columns, filter=where)

    def count(self, table: str, interval: Interval) -> int:
        """How many rows a partition holds; each is read, few at a time.

        Raises:
            KeyError: the table was never written.
            CorruptPartition: a file of it is damaged or missing.
        """
        with self._damage_told(table):
            held = self.dataset(table, [(INTERVAL, "=", interval.key)])
            scanner = held.scanner(batch_readahead=1, fragment_readahead=1)
            return sum(batch.num_rows for batch in scanner.to_batches())

    @contextlib.contextmanager
    def _damage_told(self, table: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, FileNotFoundError, OSError) as error:
            raise CorruptPartition(
                f"{self.uri(table)}: a data file is damaged or missing ({error}); rerun the "
                "interval's stage to write it anew"
            ) from error

    def intervals(self, table: str) -> list[str]:
        """Keys of the partitions that hold rows, oldest first; empty where there is no table."""
        found = self._open(table)
        if found is None:
            return []
        return sorted({str(part[INTERVAL]) for part in found.partitions()})

    def fragmented(self, table: str) -> list[str]:
        """Keys of the partitions with several small files, oldest first; see `compact`."""
        found = self._open(table)
        if found is None:
            return []
        files = pa.table(found.get_add_actions(flatten=True))
        small = files.filter(pc.less(files["size_bytes"], pa.scalar(SMALL_FILE)))
        counted = Counter(map(str, small[f"partition.{INTERVAL}"].to_pylist()))
        return sorted(key for key, count in counted.items() if count > 1)

    def compact(self, table: str, key: str) -> int:
        """Merge the small files of a partition; its rows, and older versions, stay as they are.

        Returns:
            How many files were merged.
        """
        for attempt in range(_ATTEMPTS):
            if (found := self._open(table)) is None:
                break
            try:
                merged = found.optimize.compact([(INTERVAL, "=", key)], target_size=SMALL_FILE)
                return int(merged["numFilesRemoved"])
            except CommitFailedError:
                if attempt == _ATTEMPTS - 1:
                    raise
        return 0

    def remove(self, table: str, keys: Iterable[str]) -> None:
        """Empty some partitions; their files go with the next `vacuum` that finds them old."""
        found = self._open(table)
        if found is not None and (gone := ", ".join(f"'{key}'" for key in keys)):
            found.delete(f"{INTERVAL} IN ({gone})")

    def vacuum(self, table: str, keep: timedelta = KEEP_FILES) -> int:
        """Delete the files that neither the table nor any of its versions within `keep` needs.

        Files that a killed writer left behind are among them.

        Returns:
            How many files were deleted.
        """
        found = self._open(table)
        if found is None:
            return 0
        hours = int(keep.total_seconds() // 3600)
        gone = found.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
        return len(gone)


def _writer(schema: pa.Schema) -> WriterProperties:
    """Dictionaries for texts only: of numbers they take longer to make than they save to write."""
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


class _Keyed:
    """Rows with the partition's key added; counts them and keeps the error of reading them."""

    def __init__(self, source: pa.RecordBatchReader, key: str) -> None:
        self._source, self._key = source, key
        self.schema = source.schema.append(pa.field(INTERVAL, pa.string()))
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
