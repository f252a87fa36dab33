"""The lake: Delta tables in which every interval is one partition that is replaced whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError

from pipelines.shared.columns import INTERVAL
from pipelines.shared.errors import CorruptPartition
from pipelines.shared.intervals import Interval


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
                the partition. A reader is written as it is read, in bounded memory.

        Returns:
            Number of rows stored.

        Raises:
            Exception: whatever reading from a reader raised; the partition stays as it was.
        """
        pieces = _Keyed(rows.to_reader() if isinstance(rows, pa.Table) else rows, interval.key)
        if self._open(table) is None:
            # A first write that loses the race to another one falls through to the overwrite.
            with contextlib.suppress(FileExistsError):
                write_deltalake(
                    self.uri(table), pieces.schema.empty_table(), partition_by=[INTERVAL],
                    mode="ignore",
                )  # fmt: skip
        try:
            write_deltalake(
                self.uri(table),
                pieces.reader(),
                mode="overwrite",
                predicate=f"{INTERVAL} = '{interval.key}'",
                schema_mode="merge",
            )
        except Exception as error:
            # Delta's own error hides the one that the reader raised.
            raise (pieces.error or error) from error
        return pieces.rows

    def dataset(self, table: str) -> pads.Dataset:
        """The table as an Arrow dataset, for DuckDB and filters.

        Raises:
            KeyError: the table was never written.
        """
        found = self._open(table)
        if found is None:
            raise KeyError(table)
        dataset: pads.Dataset = found.to_pyarrow_dataset()
        return dataset

    def read(
        self,
        table: str,
        intervals: Iterable[Interval | str] | None = None,
        columns: list[str] | None = None,
    ) -> pa.Table:
        """Read a table, or some of its partitions.

        Returns:
            The rows, without a promised order.

        Raises:
            KeyError: the table was never written.
            CorruptPartition: a file of it is damaged or missing.
        """
        keep = None
        if intervals is not None:
            keys = [part if isinstance(part, str) else part.key for part in intervals]
            keep = pc.field(INTERVAL).isin(pa.array(keys, pa.string()))
        try:
            return self.dataset(table).to_table(columns=columns, filter=keep)
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
