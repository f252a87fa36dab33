"""Ways to bring one table from a database to disk, each run in a process of its own.

`python -m benchmarks.contenders NAME URL TABLE FOLDER` prints one JSON object: `rows`, `seconds`
(from the first connection to the last byte, imports left out) and `peak_mb` (of the process, its
imports included).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

Started = Callable[[], None]
"""To be called when the imports are done: the clock starts."""


def pandas(url: str, table: str, folder: Path, started: Started) -> int:
    """`pandas.read_sql` to one parquet file."""
    import pandas as pd
    import sqlalchemy as sa

    started()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        frame = pd.read_sql(sa.text(f"SELECT * FROM {table}"), connection)
    frame.to_parquet(folder / "rows.parquet")
    return len(frame)


def connectorx(url: str, table: str, folder: Path, started: Started) -> int:
    """connectorx to Arrow to one parquet file."""
    import connectorx
    import pyarrow.parquet as pq

    started()
    found = connectorx.read_sql(_plain(url), f"SELECT * FROM {table}", return_type="arrow")
    pq.write_table(found, folder / "rows.parquet")
    return int(found.num_rows)


def adbc(url: str, table: str, folder: Path, started: Started) -> int:
    """A raw ADBC fetch: the batches are taken and dropped, nothing is written."""
    from adbc_driver_postgresql import dbapi

    del folder
    started()
    rows = 0
    with dbapi.connect(_plain(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        for batch in cursor.fetch_record_batch():
            rows += batch.num_rows
    return rows


def dlt(url: str, table: str, folder: Path, started: Started) -> int:
    """dlt with its connectorx backend to parquet files."""
    import dlt as tool
    from dlt.destinations import filesystem
    from dlt.sources.sql_database import sql_table

    started()
    pipeline = tool.pipeline(
        "benchmark",
        destination=filesystem(str(folder / "out")),
        dataset_name="rows",
        pipelines_dir=str(folder / "state"),
    )
    schema, name = table.split(".")
    resource = sql_table(
        credentials=_plain(url),
        schema=schema,
        table=name,
        backend="connectorx",
        reflection_level="full_with_precision",
        backend_kwargs={"conn": _plain(url), "return_type": "arrow"},
    )
    pipeline.run(resource, loader_file_format="parquet")
    counts = pipeline.last_trace.last_normalize_info.row_counts
    return int(counts[name])


def freshrank(url: str, table: str, folder: Path, started: Started) -> int:
    """The extract stage: rows durable in the lake, the manifest in the ledger.

    `folder` is an installation as `benchmarks.extract.run` makes it, with the interval to extract.
    """
    from benchmarks.extract.run import run_of
    from pipelines import extract

    del url
    run = run_of(folder)
    # Imports, as the others have theirs before the clock starts.
    for name in ("adbc_driver_postgresql.dbapi", "deltalake", "duckdb", "psycopg"):
        import_module(name)
    started()
    return extract.run(run, table.split(".")[-1]).rows


def bare_wal(url: str, slot: str, folder: Path, started: Started) -> int:
    """Fetch the slot's stream and decode each row into Python texts; nothing is kept."""
    import psycopg

    del folder
    started()
    rows = 0
    fetch = (
        "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, "
        "'proto_version', '1', 'publication_names', "
        "(SELECT quote_ident(pubname) FROM pg_publication))"
    )
    with (
        psycopg.connect(_plain(url)) as connection,
        connection.cursor("bare", binary=True) as cursor,
    ):
        connection.execute("SET logical_decoding_work_mem = '256MB'")
        cursor.itersize = 20_000
        cursor.execute(fetch, [slot])
        for (data,) in cursor:
            if data[0] == ord("I"):
                _texts(data)
                rows += 1
    return rows


def _texts(message: bytes) -> list[str | None]:
    """The values of an insert message: https://www.postgresql.org/docs/current/
    protocol-logicalrep-message-formats.html"""
    values: list[str | None] = []
    place = 8
    for _ in range(int.from_bytes(message[6:8], "big")):
        if message[place] == ord("n"):
            values.append(None)
            place += 1
            continue
        end = place + 5 + int.from_bytes(message[place + 1 : place + 5], "big")
        values.append(message[place + 5 : end].decode())
        place = end
    return values


def bare_binlog(url: str, start: str, folder: Path, started: Started) -> int:
    """Fetch and decode the binlog with mysql-replication; nothing is kept."""
    import sqlalchemy as sa
    from pymysqlreplication import BinLogStreamReader
    from pymysqlreplication.row_event import WriteRowsEvent

    del folder
    started()
    address = sa.make_url(url)
    file, _, offset = start.partition(":")
    reader = BinLogStreamReader(
        {
            "host": address.host,
            "port": address.port,
            "user": address.username,
            "passwd": address.password,
        },
        server_id=4_200_001,
        only_events=[WriteRowsEvent],
        log_file=file,
        log_pos=int(offset),
        resume_stream=True,
    )
    try:
        return sum(len(event.rows) for event in reader)
    finally:
        reader.close()


CONTENDERS: dict[str, Callable[[str, str, Path, Started], int]] = {
    each.__name__: each
    for each in (pandas, connectorx, adbc, dlt, freshrank, bare_wal, bare_binlog)
}


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def main(name: str, url: str, table: str, folder: str) -> None:
    """Run one contender and print what it took."""
    clock: list[float] = []
    rows = CONTENDERS[name](url, table, Path(folder), lambda: clock.append(time.monotonic()))
    took: dict[str, Any] = {
        "rows": rows,
        "seconds": time.monotonic() - clock[0],
        "peak_mb": _peak_mb(),
    }
    print(json.dumps(took))


if __name__ == "__main__":
    main(*sys.argv[1:])
