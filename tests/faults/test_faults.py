"""Servers that restart, connections that are cut, disks that fill: no trace, and a rerun is whole.

What is broken is one extraction of many rows, after its first batch: in the first snapshot, and
again in the changes after it.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.corner.modes import GOODS, MODES, AnyInterval, CaptureMode
from benchmarks.corner.shop import Corner, opened, same
from benchmarks.servers.mariadb import MariadbServer
from local.processes import Register, stop
from local.servers import postgres
from local.servers.postgres import PostgresServer
from pipelines import extract
from pipelines.extract import source
from pipelines.extract.binlog import source as binlog
from pipelines.extract.databases.postgres import copy
from pipelines.extract.source import ChangeBatch, ChangeSource, Position
from pipelines.extract.stage import extract as extract_from
from pipelines.shared.errors import LakeFull, SourceUnavailable
from pipelines.shared.intervals import Interval
from tests.contracts.taken import folded
from tests.extract.wal.wal_shop import LOGICAL

pytestmark = [pytest.mark.services, pytest.mark.slow]

ROWS, WIDTH = 4000, 4000
"""More than what lies in buffers between server and reader when the connection ends."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (source, binlog, copy):
        monkeypatch.setattr(module, "BATCH_BYTES", 2 << 20)


@dataclass
class Interrupted:
    """A source that something happens to after its first batch."""

    source: ChangeSource
    happens: Callable[[], None]

    def clock(self) -> datetime:
        return self.source.clock()

    def check(self, table: str) -> None:
        self.source.check(table)

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[ChangeBatch]:
        with self.source.changes(table, before, after, upto) as taken:
            yield replace(taken, batches=self._through(taken.batches))

    def _through(self, batches: Iterator[Any]) -> Iterator[Any]:
        yield next(batches)
        self.happens()
        yield from batches


def intervals(corner: Corner) -> Iterator[AnyInterval]:
    """Two intervals with many wide rows: those found, and an update of all of them."""
    chance = random.Random(3)  # noqa: S311
    goods = corner.tables[GOODS]
    for first in range(0, ROWS, 1000):
        rows = [
            {"sku": f"{n:05}", "note": chance.randbytes(WIDTH // 2).hex(), "stock": 0,
             "touched": corner.now()}
            for n in range(first, first + 1000)
        ]  # fmt: skip
        corner.write(goods.insert().values(rows))
    end = corner.cut(whole=True)
    yield corner.run(Interval(end - timedelta(seconds=1), end))
    corner.write(goods.update().values(stock=1, touched=corner.now()))
    corner.write(goods.delete().where(goods.c.sku.like("%7")))
    yield corner.run(Interval(end, corner.cut(whole=True)))


def made_good(corner: Corner, broken: type[Exception], happens: Callable[[], Any]) -> None:
    """Break each interval's extraction, run it again, and hold the lake against the source."""
    pieces = []
    for run in intervals(corner):
        with pytest.raises(broken):
            extract_from(run, GOODS, Interrupted(corner.source, happens))
        assert run.ledger.manifest("extract", GOODS, run.interval) is None
        assert not run.lake.exists(f"changes/{GOODS}") or not held(run)
        extract.run(run, GOODS)
        pieces.append(run.lake.read(f"changes/{GOODS}", [run.interval]))
        same(folded(corner, pieces), corner.present())


def held(run: AnyInterval) -> int:
    return int(run.lake.read(f"changes/{GOODS}", [run.interval]).num_rows)


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, id=str(mode)) for mode in MODES if mode.server]
)
def test_a_cut_connection(
    mode: CaptureMode, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server = request.getfixturevalue(mode.server)
    with opened(mode, server, tmp_path, choose_time=True) as corner:
        made_good(corner, SourceUnavailable, lambda: cut_connections(server))


def cut_connections(server: PostgresServer | MariadbServer) -> None:
    if isinstance(server, MariadbServer):
        listed = "SELECT id FROM information_schema.processlist WHERE id <> connection_id()"
        for (number,) in server.execute(f"{listed} AND user = 'freshrank'"):
            server.execute(f"KILL {number}")
        return
    with server.connect("postgres") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


def test_a_postgres_that_restarts(tmp_path: Path) -> None:
    register = Register(tmp_path / "services.json")
    password = secrets.token_hex(16)

    def start() -> PostgresServer:
        return postgres.start(
            tmp_path / "pg",
            password=password,
            log=tmp_path / "log",
            register=register,
            durability={**postgres.THROWAWAY, **LOGICAL},
        )

    def restart() -> None:
        stop([register.read()["postgres"]], 20, signal.SIGQUIT)  # As if it had crashed.
        start()

    server = start()
    try:
        for number, mode in enumerate(MODES):
            if "debian" not in mode.server and "postgres" in mode.server:
                folder = tmp_path / str(number)
                with opened(mode, server, folder, choose_time=True) as corner:
                    made_good(corner, SourceUnavailable, restart)
    finally:
        postgres.shut_down(register.read()["postgres"])


@pytest.mark.parametrize(
    "mode", [pytest.param(w, id=str(w)) for w in MODES if w.server == "mariadb"]
)
def test_a_mariadb_that_restarts(mode: CaptureMode, mariadb: MariadbServer, tmp_path: Path) -> None:
    # A crash loses what InnoDB has not written yet, and the binlog has: not on a careful server.
    durable = "SET GLOBAL innodb_flush_log_at_trx_commit = 1, GLOBAL sync_binlog = 1"
    mariadb.execute(durable)

    def restart() -> None:
        mariadb.stop(signal.SIGKILL)
        mariadb.start()
        mariadb.execute(durable)

    with opened(mode, mariadb, tmp_path, choose_time=True) as corner:
        made_good(corner, SourceUnavailable, restart)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A lake's folder on a disk of its own, of 200 MB."""
    folder = tmp_path / "lake"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Less than the rows need is left of a disk."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - (4 << 20))
    yield
    filler.unlink()


DISK = ("trigger-postgres", "wal-logical_postgres", "binlog-mariadb", "cursor-sqlite")


@pytest.mark.parametrize("mode", [pytest.param(w, id=str(w)) for w in MODES if str(w) in DISK])
def test_a_full_disk(
    mode: CaptureMode, request: pytest.FixtureRequest, tmp_path: Path, disk: Path
) -> None:
    """The lake's disk fills in the midst of an extraction; with room again, the rerun is whole."""
    server = request.getfixturevalue(mode.server) if mode.server else None
    with opened(mode, server, tmp_path, choose_time=True) as corner:
        pieces = []
        for run in intervals(corner):
            with filled(disk), pytest.raises(LakeFull, match=r"goods: no room.*then run again"):
                extract.run(run, GOODS)
            assert run.ledger.manifest("extract", GOODS, run.interval) is None
            extract.run(run, GOODS)
            pieces.append(run.lake.read(f"changes/{GOODS}", [run.interval]))
            same(folded(corner, pieces), corner.present())
