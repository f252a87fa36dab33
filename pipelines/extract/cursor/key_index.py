"""The keys of a table that a cursor source has extracted, each with its last cursor and version.

An index is a few immutable Parquet files beside the lake's tables, named by a position. Each
extraction adds one file with the keys of its changes; the newest entry of a key counts, and every
eighth extraction merges the files. A file that no position names means nothing: a run that died
leaves one, and the rerun replaces it. A file is deleted once the position before an extraction no
longer names it.

The folder was called `taken/<table>` once. Files that lie there are read and deleted by the same
rules; nothing is written there, so that it is empty after the next merge.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.shared.columns import MISFITS
from pipelines.shared.errors import CorruptPartition
from pipelines.shared.lake import Lake

CURSOR, VERSION, LIVE, ORDINAL = "_cursor", "_version", "_live", "_ordinal"
FILES = 8
"""So many files are merged: each of them is looked at for each batch of changes."""
MEMORY = "128MB"
"""What the comparison of keys holds before it spills to disk, however many keys there are."""


def quoted(names: Sequence[str]) -> str:
    """Names as a list in SQL."""
    return ", ".join(f'"{name}"' for name in names)


def versions(engine: Any, rows: pa.RecordBatch) -> Any:
    """64 bits of the MD5 (RFC 1321) of each row's values, as uint64.

    Each value counts with its length, so that no two rows make one text. Misfits count only where
    there are any, so that rows keep the versions that they had before there was such a column.
    """
    plain = pa.table(
        [
            pc.cast(column, pa.int64()) if pa.types.is_timestamp(column.type) else column
            for column in rows.columns
        ],
        names=rows.schema.names,
    )
    parts = ", ".join(
        f"coalesce(strlen({text}) || ':' || {text}, '{'' if name == MISFITS else '-'}')"
        for name in plain.column_names
        for text in [f'"{name}"::varchar']
    )
    engine.register("rows", plain)
    hashed = engine.sql(f"SELECT md5_number_lower(concat({parts})) AS v FROM rows")
    return hashed.to_arrow_table().column("v").combine_chunks()


class KeyIndex:
    """The keys of one table that were extracted before.

    `key` has the types stored; `files` are those that the position names, oldest first.
    """

    def __init__(
        self, lake: Lake, table: str, key: pa.Schema, cursor: pa.DataType, files: Sequence[str],
        threads: int,
    ) -> None:  # fmt: skip
        self._files, self._folder = _located(lake.uri(f"key_index/{table}"))
        _, self._former = _located(lake.uri(f"taken/{table}"))
        self.names = list(files)
        self.key, self.cursor = key, cursor
        self.schema = pa.schema(
            [*key, (CURSOR, cursor), (VERSION, pa.uint64()), (LIVE, pa.bool_()),
             (ORDINAL, pa.int64())]
        )  # fmt: skip
        self._threads = threads

    @contextlib.contextmanager
    def engine(self) -> Iterator[Any]:
        """DuckDB with the view `entries` of all files, if there are any; it may spill to disk."""
        import duckdb

        with (
            tempfile.TemporaryDirectory(prefix="freshrank-") as folder,
            duckdb.connect(
                config={
                    "threads": self._threads,
                    "memory_limit": MEMORY,
                    "temp_directory": folder,
                }
            ) as engine,
        ):
            engine.execute("SET TimeZone = 'UTC'")
            if self.names:
                paths = [self._path(name) for name in self.names]
                if isinstance(self._files, pafs.LocalFileSystem):
                    engine.read_parquet(paths).create_view("entries")
                else:
                    entries = pads.dataset(paths, schema=self.schema, filesystem=self._files)
                    engine.register("entries", entries)
            yield engine

    def latest(self, among: str = "") -> str:
        """A query of each key's last entry: the key, `_cursor`, `_version`, `_live`.

        Where `among` names a relation, only its keys are looked at, so that they bound the memory.
        """
        key = quoted(self.key.names)
        some = f"SEMI JOIN {among} USING ({key})" if among else ""
        return (
            f"SELECT {key}, last.* FROM (SELECT {key}, arg_max(struct_pack("
            f"{CURSOR}, {VERSION}, {LIVE}), {ORDINAL}) AS last FROM entries {some} GROUP BY {key})"
        )

    def require(self) -> None:
        """Make sure that every file is there.

        Raises:
            CorruptPartition: one is not.
        """
        lost = [name for name in self.names if not self._is_file(self._path(name))]
        if lost:
            raise CorruptPartition(
                f"the index of keys, {self._folder}, lacks {', '.join(lost)}, which the position "
                "on record names; bring the folder back from a backup of the lake, or start "
                "afresh with an empty lake and ledger of this shop"
            )

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[Any]:
        """A writer of one further file, which is whole when the block ends well."""
        self._files.create_dir(self._folder, recursive=True)
        path = f"{self._folder}/{name}.parquet"
        # Keys, cursors and versions hardly repeat: a dictionary of them costs and saves nothing.
        options: Any = {"filesystem": self._files, "use_dictionary": [LIVE, ORDINAL]}
        with pq.ParquetWriter(f"{path}.part", self.schema, **options) as writer:
            yield writer
        self._files.move(f"{path}.part", path)

    def merge(self, further: str, name: str) -> None:
        """Write the last entries of all files and a further one into one, less the tombstones."""
        whole = copy.copy(self)
        whole.names = [*self.names, further]
        columns = quoted(self.schema.names[:-1])
        with whole.engine() as engine, self.writer(name) as writer:
            entries = engine.sql(
                f"SELECT {columns}, 0::bigint AS {ORDINAL} FROM ({self.latest()}) WHERE {LIVE}"
            )
            for batch in entries.to_arrow_reader(100_000):
                writer.write_batch(batch.cast(self.schema))

    def tidy(self, ordinal: int) -> None:
        """Delete files that positions up to an extraction made needless."""
        for folder in (self._folder, self._former):
            selector = pafs.FileSelector(folder, allow_not_found=True)
            for file in self._files.get_file_info(selector):
                name = file.base_name.removesuffix(".part").removesuffix(".parquet")
                number = int(name.split("-")[0]) if name[:1].isdigit() else ordinal + 1
                needed = name in self.names and self._folder_of(name) == folder
                if number <= ordinal and not needed:
                    self._files.delete_file(file.path)

    def _path(self, name: str) -> str:
        return f"{self._folder_of(name)}/{name}.parquet"

    def _folder_of(self, name: str) -> str:
        """Where a file lies: in the former folder only if it does not lie in today's."""
        only_former = not self._is_file(f"{self._folder}/{name}.parquet") and self._is_file(
            f"{self._former}/{name}.parquet"
        )
        return self._former if only_former else self._folder

    def _is_file(self, path: str) -> bool:
        return bool(self._files.get_file_info(path).type is pafs.FileType.File)


def _located(uri: str) -> tuple[Any, str]:
    """File system and path of a folder, local or of an object store."""
    if "://" in uri:
        files, folder = pafs.FileSystem.from_uri(uri)
        return files, str(folder)
    return pafs.LocalFileSystem(), str(Path(uri).absolute())


def erase_keys(lake: Lake, table: str, theirs: Callable[[pa.Table], Any]) -> int:
    """Erase some keys from every file of a table's index; their names stay, so positions do too.

    Nobody may be extracting the table meanwhile.

    Args:
        theirs: a mask of the entries to erase.

    Returns:
        The number of entries erased.
    """
    erased = 0
    for folder in (f"key_index/{table}", f"taken/{table}"):
        files, path = _located(lake.uri(folder))
        for file in files.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
            if file.base_name.endswith(".part"):  # Of a writer that was killed.
                files.delete_file(file.path)
                continue
            with files.open_input_file(file.path) as opened:
                held = pq.read_table(opened)
            mask: Any = pc.invert(theirs(held))
            kept = held.filter(mask)
            if kept.num_rows < held.num_rows:
                options: Any = {"filesystem": files, "use_dictionary": [LIVE, ORDINAL]}
                pq.write_table(kept, f"{file.path}.part", **options)
                files.move(f"{file.path}.part", file.path)
                erased += held.num_rows - kept.num_rows
    return erased
