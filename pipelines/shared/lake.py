"""The lake: Delta tables in which every interval is one partition that is replaced whole."""

from __future__ import annotations

import contextlib
import errno
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from pipelines.shared.columns import COMMITTED_AT, INTERVAL, OP, POSITION, REASONS
from pipelines.shared.errors import CorruptPartition, LakeUnavailable
from pipelines.shared.intervals import Interval
from pipelines.shared.partition_writer import create_table, write_partition

KEEP_FILES: Final = timedelta(days=7)
"""How long a file is kept that no table needs any more: longer than any reader reads."""
SMALL_FILE: Final = 100_000_000
"""Size in bytes below which files are merged."""
_ATTEMPTS: Final = 5
"""How often a write is tried, when another writer changes the same partition first."""

_AWAY: Final = re.compile(
    r"(?i)permission denied|access[ _]?denied|forbidden|expired[ _]?token|too many open files"
    r"|timed? ?out|throttl|slow[ _]?down|reduce your request|connection|temporarily"
    r"|\b(429|500|502|503|504)\b|input/output error|no space left|os error (5|13|23|24|28|116)\b"
)
"""What storage that does not answer, or not to us, says of itself."""

Partitions = list[tuple[str, str, str | list[str]]]
"""Conditions on a partition's key: column, comparison, value."""


def in_source_order(rows: pa.Table) -> pa.Table:
    """Changes in the order of their source, the order in which manifests hash them.

    Several changes may share a position: the other columns decide their order.
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
        except (DeltaError, OSError) as error:
            self._require_available(table, error)
            raise CorruptPartition(
                f"{self.uri(table)}: the table's log is damaged ({error}); restore the "
                "folder `_delta_log` from a backup of the lake"
            ) from error

    def _require_available(self, table: str, error: Exception) -> None:
        """Tell storage that does not answer from content that is missing or damaged.

        Arrow and delta-rs raise the same types for both; the system's errors have a number, a
        store's say so in words.

        Raises:
            LakeUnavailable: the storage does not answer now.
        """
        number = getattr(error, "errno", None)
        away = number is not None and number != errno.ENOENT
        if away or _AWAY.search(str(error)):
            raise LakeUnavailable(
                f"{self.uri(table)} cannot be read now ({error}); what it holds is not in "
                "question: see to its storage and to who may read it, then run again"
            ) from error

    def exists(self, table: str) -> bool:
        """Whether the table was ever written."""
        return self._open(table) is not None

    def version(self, table: str) -> int | None:
        """The table's Delta version; None where it was never written."""
        opened = self._open(table)
        return None if opened is None else int(opened.version())

    def replace(self, table: str, interval: Interval, rows: pa.Table | pa.RecordBatchReader) -> int:
        """Make `rows` the interval's partition, whole or not at all.

        Args:
            rows: any columns but `interval_start`, which is added. An empty table empties
                the partition. A reader is written as it is read, in bounded memory; only a
                table is written again when another writer changed the partition meanwhile.

        Returns:
            Number of rows stored.

        Raises:
            LakeFull: there is no room for the rows; the partition stays as it was.
            Exception: whatever reading from a reader raised; the partition stays as it was.
        """
        uri = self.uri(table)
        if self._open(table) is None:
            create_table(uri, rows.schema)
        if not isinstance(rows, pa.Table):
            return write_partition(uri, self._written(table), interval, rows)
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(CommitFailedError):
                return write_partition(uri, self._written(table), interval, rows.to_reader())
        return write_partition(uri, self._written(table), interval, rows.to_reader())

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
        opened = self._written(table)
        dataset: pads.Dataset = opened.to_pyarrow_dataset(file_pruning_predicate=partitions)
        return dataset

    def _written(self, table: str) -> DeltaTable:
        opened = self._open(table)
        if opened is None:
            raise KeyError(table)
        return opened

    def read(
        self,
        table: str,
        intervals: Iterable[Interval | str] | None = None,
        columns: list[str] | None = None,
        where: pc.Expression | None = None,
        between: tuple[str, str] | None = None,
    ) -> pa.Table:
        """Read a table, or some of its partitions; the cost does not grow with the others.

        Args:
            between: only partitions whose key lies in `[first, last)`.
            where: only rows for which this holds; the others are never held in memory.

        Returns:
            The rows, without a promised order.

        Raises:
            KeyError: the table was never written.
            CorruptPartition: a file of it is damaged or missing.
            LakeUnavailable: its storage does not answer now.
        """
        chosen: Partitions = []
        if intervals is not None:
            keys = [part if isinstance(part, str) else part.key for part in intervals]
            chosen.append((INTERVAL, "in", keys))
        if between is not None:
            chosen += [(INTERVAL, ">=", between[0]), (INTERVAL, "<", between[1])]
        with self._translate_errors(table):
            return self.dataset(table, chosen or None).to_table(columns=columns, filter=where)

    def partitions(self, table: str, columns: Iterable[str]) -> Iterator[tuple[str, pa.Table]]:
        """Each partition's key, oldest first, and some columns of its rows, one at a time.

        Args:
            columns: those that the table lacks are passed over.

        Raises:
            CorruptPartition: a file of it is damaged or missing.
        """
        keys = self.intervals(table)
        if not keys:
            return
        dataset = self.dataset(table)
        wanted = [name for name in columns if name in dataset.schema.names]
        for key in keys:
            with self._translate_errors(table):
                rows = dataset.to_table([*wanted, INTERVAL], filter=pc.field(INTERVAL) == key)
            yield key, rows

    def count(self, table: str, interval: Interval) -> int:
        """The number of rows in a partition, which are all read, a few at a time.

        Raises:
            KeyError: the table was never written.
            CorruptPartition: a file of it is damaged or missing.
        """
        with self._translate_errors(table):
            held = self.dataset(table, [(INTERVAL, "=", interval.key)])
            scanner = held.scanner(batch_readahead=1, fragment_readahead=1)
            return sum(batch.num_rows for batch in scanner.to_batches())

    @contextlib.contextmanager
    def _translate_errors(self, table: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, DeltaError, OSError) as error:
            self._require_available(table, error)
            raise CorruptPartition(
                f"{self.uri(table)}: a data file is damaged or missing ({error}); rerun the "
                "interval's stage to write it again"
            ) from error

    def intervals(self, table: str) -> list[str]:
        """Keys of the partitions that hold rows, oldest first; empty where there is no table."""
        opened = self._open(table)
        if opened is None:
            return []
        return sorted({str(part[INTERVAL]) for part in opened.partitions()})

    def row_counts(self, table: str) -> dict[str, int]:
        """Key → rows of every partition that holds any, from the table's log alone."""
        opened = self._open(table)
        if opened is None:
            return {}
        files = pa.table(opened.get_add_actions(flatten=True))
        counted = files.group_by(f"partition.{INTERVAL}").aggregate([("num_records", "sum")])
        return {
            str(key): int(rows)
            for key, rows in zip(*(column.to_pylist() for column in counted.columns), strict=True)
        }

    def fragmented(self, table: str) -> list[str]:
        """Keys of the partitions with several small files, oldest first; see `compact`."""
        opened = self._open(table)
        if opened is None:
            return []
        files = pa.table(opened.get_add_actions(flatten=True))
        small = files.filter(pc.less(files["size_bytes"], pa.scalar(SMALL_FILE)))
        counted = Counter(map(str, small[f"partition.{INTERVAL}"].to_pylist()))
        return sorted(key for key, count in counted.items() if count > 1)

    def compact(self, table: str, key: str) -> int:
        """Merge the small files of a partition; its rows, and older versions, stay as they are.

        Returns:
            The number of files merged.
        """
        for attempt in range(_ATTEMPTS):
            if (opened := self._open(table)) is None:
                break
            try:
                merged = opened.optimize.compact([(INTERVAL, "=", key)], target_size=SMALL_FILE)
                return int(merged["numFilesRemoved"])
            except CommitFailedError:
                if attempt == _ATTEMPTS - 1:
                    raise
        return 0

    def remove(self, table: str, keys: Iterable[str]) -> None:
        """Empty some partitions; a later `vacuum` deletes their files, once they are old."""
        opened = self._open(table)
        if opened is not None and (listed := ", ".join(f"'{key}'" for key in keys)):
            opened.delete(f"{INTERVAL} IN ({listed})")

    def vacuum(self, table: str, keep: timedelta = KEEP_FILES) -> int:
        """Delete the files that neither the table nor any of its versions within `keep` needs.

        Files that a killed writer left behind are deleted too. What was deleted is committed to
        the table's log.

        Returns:
            The number of files deleted.
        """
        return len(self._vacuum(table, keep, dry_run=False))

    def unneeded(self, table: str, keep: timedelta) -> list[str]:
        """What `vacuum` would delete: paths below the table's folder."""
        return self._vacuum(table, keep, dry_run=True)

    def keep_only_present(self, table: str) -> None:
        """Delete every file and log entry of earlier versions, and files that no version knows.

        What was deleted from the table's partitions is then nowhere: the log's entries hold the
        least and greatest values of files. Nobody may be writing the table meanwhile.
        """
        if self._open(table) is None:
            return
        self.vacuum(table, timedelta(0))
        opened = self._written(table)
        opened.create_checkpoint()
        uri = self.uri(table)
        files, folder = pafs.FileSystem.from_uri(
            uri if "://" in uri else Path(uri).absolute().as_uri()
        )
        present = f"{opened.version():020}"
        for file in files.get_file_info(pafs.FileSelector(f"{folder}/_delta_log")):
            if file.base_name[:20].isdigit() and file.base_name[:20] < present:
                files.delete_file(file.path)

    def _vacuum(self, table: str, keep: timedelta, *, dry_run: bool) -> list[str]:
        opened = self._open(table)
        if opened is None:
            return []
        hours = int(keep.total_seconds() // 3600)
        paths: list[str] = opened.vacuum(
            hours, dry_run, enforce_retention_duration=False, full=True
        )
        return paths
