"""Rows as a file or as a table on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipelines.shared.errors import SettingsError

FORMATS = (".parquet", ".csv")


def require_format(path: Path) -> None:
    """Refuse a file whose format is not known.

    Raises:
        SettingsError: its name ends neither in `.parquet` nor in `.csv`.
    """
    if path.suffix not in FORMATS:
        raise SettingsError(f"{path} has no known format; end its name in {' or '.join(FORMATS)}")


def write(rows: pa.RecordBatchReader, path: Path) -> int:
    """Write rows as they are read, and count them; the file appears whole or not at all."""
    from pyarrow.csv import CSVWriter
    from pyarrow.parquet import ParquetWriter

    if path.suffix == ".csv":
        rows = _in_text(rows)
    kinds: dict[str, Any] = {".parquet": ParquetWriter, ".csv": CSVWriter}
    part, count = path.with_name(f".{path.name}.part"), 0
    with kinds[path.suffix](part, rows.schema) as file:
        for batch in rows:
            file.write_batch(batch)
            count += batch.num_rows
    part.replace(path)
    return count


def _in_text(rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same rows with bytes as hexadecimal digits, for a text file."""
    schema = pa.schema(
        [
            (each.name, pa.string() if pa.types.is_binary(each.type) else each.type)
            for each in rows.schema
        ]
    )
    batches = (
        pa.record_batch(
            [
                pa.array([each and each.hex() for each in column.to_pylist()], pa.string())
                if pa.types.is_binary(column.type)
                else column
                for column in batch.columns
            ],
            schema=schema,
        )
        for batch in rows
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def terminal_table(rows: pa.RecordBatchReader) -> Table:
    """Rows as a table for a terminal; null is an en dash."""
    table = Table(*rows.schema.names, box=SIMPLE_HEAD, pad_edge=False)
    for batch in rows:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            table.add_row(*("–" if value is None else str(value) for value in row))
    return table
