"""Fetches the rows of a COPY in lists of bounded size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import psycopg
import pyarrow as pa
from pyarrow import csv

from pipelines.extract.source import BATCH, BATCH_BYTES

_COPY_HEADER = b"PGCOPY\n\xff\r\n\0"
FIELD = 6
"""Bytes before the one value of a row in PostgreSQL's binary COPY format."""


def copied(connection: Any, query: Any, binary: bool) -> Iterator[list[Any]]:
    """Rows of a COPY, in lists of bounded size.

    Straight from libpq: psycopg's own `Copy` spends more on a row than all else here together.
    """
    server = connection.pgconn
    _require(server.exec_(query.as_bytes(connection)), psycopg.pq.ExecStatus.COPY_OUT)
    rows: list[Any] = []
    held = 0
    size = 1
    try:
        while True:
            size, row = server.get_copy_data(0)
            if size < 0:
                break
            if binary and row[:11] == _COPY_HEADER:
                row = row[19:]  # Which some servers send with the first row, others apart.
            if binary and len(row) <= FIELD:
                continue  # Nothing but the end.
            rows.append(row)
            held += size
            if len(rows) >= BATCH or held >= BATCH_BYTES:
                yield rows
                rows, held = [], 0
    finally:
        while size > 0:  # What nobody wants any more has to be fetched all the same.
            size, _ = server.get_copy_data(0)
        while result := server.get_result():
            _require(result, psycopg.pq.ExecStatus.COMMAND_OK)
    if rows:
        yield rows


def _require(result: Any, status: Any) -> None:
    if result.status != status:
        raise psycopg.errors.error_from_result(result)


def read_csv(lines: list[Any], names: list[str]) -> pa.Table:
    """Rows in CSV as PostgreSQL's COPY writes it: only a null is not in quotes."""
    data = b"".join(lines)
    return csv.read_csv(
        io.BytesIO(data),
        csv.ReadOptions(column_names=names, block_size=len(data) + 1, use_threads=False),
        csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
