"""Extraction beside the other ways to bring a table from a database to disk."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.corner.kills import survived_everywhere
from benchmarks.corner.modes import AnyInterval
from benchmarks.servers import mariadb as mariadb_server
from local.servers import postgres
from local.servers.postgres import PostgresServer
from pipelines import extract
from pipelines.shared.declaration import load_shop
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run
from pipelines.shared.settings import PROJECT, Settings

SHOP, TABLE = "bench", "sales"
OTHERS = ("pandas", "connectorx", "adbc", "dlt")
CHUNKS = 100
"""Transactions in which the rows of a stream are written."""
BINLOG_SHARE = 4
"""The binlog's bare loop is slow: it gets a quarter of the rows."""
say = Console(stderr=True, highlight=False)

_SHOP = """
shop: bench
title: One large table
sources: {shop: {connection: bench, capture: %s, schema: %s}}
tables:
  sales:
    key: [sale_id]
    columns:
      sale_id: int64
      shopper: int32
      sku: string
      quantity: int32
      price: decimal(10,2)
      paid: bool
      note: string
      sold_at: timestamp
      updated_at: timestamp
%s
shopper: {table: sales, id: shopper}
item: {table: sales, id: sku, category: note}
events:
  - {kind: sale, grade: 1, table: sales, time: sold_at, shopper: shopper, item: sku, group: sale_id}
surfaces:
  - name: basket
    candidates: generated
    groups_of: sale
    attribution_days: 0.0
    max_candidates: 300
    top_k: 20
interval: {anchor: 2017-01-02, days: 7}
"""
_CURSOR = "    cursor: {column: updated_at}"
_TABLE = """
    CREATE SCHEMA {schema};
    CREATE TABLE {schema}.sales (
        sale_id bigint PRIMARY KEY, shopper integer NOT NULL, sku text NOT NULL, quantity integer,
        price numeric(10, 2), paid boolean, note text,
        sold_at timestamptz NOT NULL, updated_at timestamptz NOT NULL)
"""
_ROWS = """
    INSERT INTO {schema}.sales
    SELECT i, i % 50000, 'sku-' || (i * 7919) % 92000, i % 7, (i % 10000) / 100.0, i % 3 = 0,
           CASE WHEN i % 5 > 0 THEN md5(i::text) END,
           timestamptz '2017-01-02' + i * interval '0.2 s',
           timestamptz '2017-01-02' + i * interval '0.2 s'
    FROM generate_series({first}::bigint, {last}::bigint) AS i
"""
_MARIADB_TABLE = """
    CREATE TABLE sales (
        sale_id bigint PRIMARY KEY, shopper integer NOT NULL, sku varchar(40) NOT NULL,
        quantity integer, price decimal(10, 2), paid boolean, note text,
        sold_at datetime(6) NOT NULL, updated_at datetime(6) NOT NULL)
"""
_MARIADB_ROWS = """
    INSERT INTO sales
    SELECT seq, seq % 50000, concat('sku-', (seq * 7919) % 92000), seq % 7, (seq % 10000) / 100.0,
           seq % 3 = 0, IF(seq % 5 > 0, md5(seq), NULL),
           '2017-01-02' + INTERVAL seq * 200000 MICROSECOND,
           '2017-01-02' + INTERVAL seq * 200000 MICROSECOND
    FROM seq_{first}_to_{last}
"""


def main(
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the table.")] = 2_000_000,
    kills: Annotated[int, typer.Option(min=0, help="Extractions to kill; about 1 s each.")] = 210,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON line.")] = False,
) -> None:
    """Time extraction beside pandas, connectorx, ADBC, dlt and bare readers of the same logs.

    Each runs once, in a process of its own, one after the other. The last line is one JSON object:
    rows a second of each (`rows_per_s`), peak memory in MB of each (`memory_mb`), and the ratios
    `cursor_vs_dlt`, `cursor_vs_adbc`, `wal_vs_bare`, `binlog_vs_bare`; `peak_mb` is the largest of
    Freshrank's own; `rows_lost` and `rows_doubled` count its rows against the source's; `faults`
    is the number of extractions, over all ways of capturing, that were killed at random instants
    under writers and left what the source holds after a rerun.
    """
    found: dict[str, dict[str, float]] = {}
    lost = doubled = 0
    with (
        tempfile.TemporaryDirectory() as home,
        postgres.server(Path(home), {"wal_level": "logical", "max_wal_size": "8GB"}) as server,
        mariadb_server.server() as mariadb,
    ):
        url = server.url("shop")
        with server.connect("shop") as connection:
            connection.execute(_TABLE.format(schema="bench"))
            connection.execute(_ROWS.format(schema="bench", first=1, last=rows))
            connection.execute("CREATE INDEX ON bench.sales (updated_at); ANALYZE bench.sales")
        for name in OTHERS:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = _timed(name, url, "bench.sales", folder)
        for name, (seconds, kept) in {
            "cursor": _cursor(url, rows),
            **_wal(server, url, rows),
            **_binlog(mariadb, rows // BINLOG_SHARE),
        }.items():
            found[name] = seconds
            lost, doubled = lost + kept[0], doubled + kept[1]
        faults = _faults(server, mariadb, kills) if kills else 0
    if not as_json:
        _show(found)
    speed = {name: each["rows"] / each["seconds"] for name, each in found.items()}
    memory = {name: round(each["peak_mb"]) for name, each in found.items()}
    print(
        json.dumps(
            {
                "rows": rows,
                "rows_per_s": {name: round(value) for name, value in speed.items()},
                "memory_mb": memory,
                "cursor_vs_dlt": round(speed["cursor"] / speed["dlt"], 2),
                "cursor_vs_adbc": round(speed["cursor"] / speed["adbc"], 2),
                "wal_vs_bare": round(speed["wal"] / speed["bare_wal"], 2),
                "binlog_vs_bare": round(speed["binlog"] / speed["bare_binlog"], 2),
                "peak_mb": max(memory[name] for name in ("cursor", "wal", "binlog")),
                "rows_lost": lost,
                "rows_doubled": doubled,
                "faults": faults,
            }
        )
    )


Result = tuple[dict[str, float], tuple[int, int]]
"""What a process took; rows lost and doubled."""


def _cursor(url: str, rows: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        home = _installation(Path(folder), "cursor", "bench", url)
        took = _timed("freshrank", url, TABLE, folder)
        return took, _held(run_of(home), rows)


def _wal(server: PostgresServer, url: str, rows: int) -> dict[str, Result]:
    with tempfile.TemporaryDirectory() as folder, server.connect("shop") as connection:
        home = _installation(Path(folder), "wal", "live", url)
        connection.execute(_TABLE.format(schema="live"))
        shop = run_of(home).shop
        extract.install(url, shop)
        extract.run(_until_now(home), TABLE)
        for first, last in _chunks(rows):
            connection.execute(_ROWS.format(schema="live", first=first, last=last))
        query = "SELECT slot_name FROM pg_replication_slots"
        (slot,) = connection.execute(query).fetchone() or ("",)
        run = _until_now(home)
        bare = _timed("bare_wal", url, slot, folder)
        took = _timed("freshrank", url, TABLE, folder)
        held = _held(run, rows)
        extract.remove(url, shop)
        return {"bare_wal": (bare, (0, 0)), "wal": (took, held)}


def _binlog(mariadb: Any, rows: int) -> dict[str, Result]:
    with (
        tempfile.TemporaryDirectory() as folder,
        mariadb_server.database(mariadb) as url,
        mariadb_server.connect(url) as connection,
        connection.cursor() as cursor,
    ):
        home = _installation(Path(folder), "binlog", connection.db.decode(), url)
        cursor.execute(_MARIADB_TABLE)
        extract.install(url, run_of(home).shop)
        extract.run(_until_now(home), TABLE)
        cursor.execute("SHOW MASTER STATUS")
        file, offset, *_ = cursor.fetchone()
        for first, last in _chunks(rows):
            cursor.execute(_MARIADB_ROWS.format(first=first, last=last))
        run = _until_now(home)
        bare = _timed("bare_binlog", url, f"{file}:{offset}", folder)
        took = _timed("freshrank", url, TABLE, folder)
        return {"bare_binlog": (bare, (0, 0)), "binlog": (took, _held(run, rows))}


def _faults(server: PostgresServer, mariadb: Any, kills: int) -> int:
    servers = {"postgres": server, "logical_postgres": server, "mariadb": mariadb}
    say.print(f"{kills} kills …")
    with tempfile.TemporaryDirectory() as folder:
        return survived_everywhere(servers, Path(folder), kills, seed=11)


def _chunks(rows: int) -> Iterator[tuple[int, int]]:
    size = -(-rows // CHUNKS)
    return ((first, min(first + size - 1, rows)) for first in range(1, rows + 1, size))


def _installation(folder: Path, capture: str, schema: str, url: str) -> Path:
    """A shop's declaration, a lake and a ledger under a folder; the table's own week to extract."""
    declared = folder / "shops" / SHOP
    declared.mkdir(parents=True)
    own = _CURSOR if capture == "cursor" else ""
    (declared / "shop.yaml").write_text(_SHOP % (capture, schema, own), encoding="utf-8")
    (folder / "url").write_text(url, encoding="utf-8")
    _set_interval(folder, Interval.of("2017-01-02", "2017-01-09"))
    return folder


def _until_now(folder: Path) -> Run:
    """The next interval to extract ends now; what was written so far lies before its end."""
    time.sleep(2)  # A binlog's times are whole seconds.
    former = run_of(folder).interval
    _set_interval(folder, Interval(former.end, datetime.now(UTC).replace(microsecond=0)))
    return run_of(folder)


def _set_interval(folder: Path, interval: Interval) -> None:
    ends = [interval.start.isoformat(), interval.end.isoformat()]
    (folder / "interval").write_text("\n".join(ends), encoding="utf-8")


def run_of(folder: Path) -> Run:
    """The run to time, from what `_installation` and `_until_now` wrote."""
    settings = Settings(
        lake=str(folder / "lake"),
        ledger_url=SecretStr(f"sqlite:///{folder}/ledger.db"),
        mlflow_uri=SecretStr(""),
        connections={SHOP: SecretStr((folder / "url").read_text(encoding="utf-8"))},
        shops=folder / "shops",
    )
    start, end = map(datetime.fromisoformat, (folder / "interval").read_text("utf-8").split())
    return AnyInterval(settings, load_shop(SHOP, settings.shops), Interval(start, end))


def _held(run: Run, rows: int) -> tuple[int, int]:
    """How many of the source's rows the partition lacks, and how many it holds twice."""
    keys = run.lake.read(f"changes/{TABLE}", [run.interval], ["sale_id"])["sale_id"]
    distinct = len(keys.unique())
    return rows - distinct, len(keys) - distinct


def _timed(name: str, url: str, table: str, folder: str) -> dict[str, float]:
    say.print(f"{name} …")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.extract.contenders", name, url, table, folder],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-3000:]}")
    took: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return took


def _show(found: dict[str, dict[str, float]]) -> None:
    table = Table(box=SIMPLE_HEAD)
    for name in ("", "rows", "seconds", "rows/s", "peak MB"):
        table.add_column(name, justify="left" if not name else "right")
    for name, each in found.items():
        speed = each["rows"] / each["seconds"]
        values = (each["rows"], each["seconds"], speed, each["peak_mb"])
        formats = (",.0f", ",.1f", ",.0f", ",.0f")
        table.add_row(name, *(format(*pair) for pair in zip(values, formats, strict=True)))
    Console().print(table)
