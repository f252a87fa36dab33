"""A ledger that hangs, is locked, takes no writes or is half made: a named error, in time."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from benchmarks.servers.mariadb import MariadbServer
from local.servers.postgres import PostgresServer
from pipelines.shared.errors import LedgerBusy, LedgerReadOnly, LedgerUnavailable
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Ledger, Manifest, database
from pipelines.shared.ledger.tables import METADATA
from tests.ledgers import ALL, SERVERS

WEEK = Interval.of("2017-01-02", "2017-01-09")


def bound(monkeypatch: pytest.MonkeyPatch, connect_s: float = 1.0, answer_s: float = 1.0) -> None:
    monkeypatch.setattr(database, "CONNECT_S", connect_s)
    monkeypatch.setattr(database, "ANSWER_S", answer_s)


@contextlib.contextmanager
def dripping(beginning: bytes) -> Iterator[int]:
    """A server that accepts, sends a beginning, and then a byte ten times a second, for ever."""
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.sendall(beginning)
            while not over.wait(0.1):
                client.sendall(b"\0")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                threading.Thread(target=drip, args=[server.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()


@pytest.mark.parametrize(
    ("driver", "beginning"),
    [
        ("postgresql+psycopg", b"N" + b"R" + (2000).to_bytes(4, "big")),
        ("mysql+pymysql", b"\xff\xff\xff\x00\x0a8.0.0"),
    ],
)
def test_a_server_that_drips_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch, driver: str, beginning: bytes
) -> None:
    bound(monkeypatch)
    with dripping(beginning) as port:
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable, match=rf"127\.0\.0\.1:{port}.*within 1 s"):
            Ledger(f"{driver}://someone:secret@127.0.0.1:{port}/ledger", "shop", "surface")
        assert time.monotonic() - began < 5


class Relay:
    """A way to a real server that can be made to swallow all that the server says."""

    def __init__(self, port: int) -> None:
        self.silent = threading.Event()
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._server.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._to))
                for one, other, gated in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._pass, args=(one, other, gated), daemon=True
                    ).start()

    def _pass(self, one: socket.socket, other: socket.socket, gated: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if not (gated and self.silent.is_set()):
                    other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._server.close()


@pytest.mark.parametrize("ledger_url", SERVERS, indirect=True)
@pytest.mark.parametrize("when", ["at a statement", "at the commit"])
def test_a_server_that_falls_silent_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch, ledger_url: str, when: str
) -> None:
    bound(monkeypatch, connect_s=20)
    address = sa.make_url(ledger_url)
    assert address.port is not None
    with contextlib.closing(Relay(address.port)) as relay:
        through = address.set(port=relay.port).render_as_string(hide_password=False)
        ledger = Ledger(through, "shop", "surface")

        def fall_silent() -> None:
            with ledger.transaction() as connection:
                if when == "at the commit":
                    connection.execute(sa.text("delete from freshrank_locks"))
                relay.silent.set()
                if when == "at a statement":
                    connection.execute(sa.text("select 1"))

        began = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="no answer within 1 s"):
            fall_silent()
        assert time.monotonic() - began < 10


_HOLDER = """
import sys, time
from pipelines.shared.ledger import Ledger
with Ledger(sys.argv[1], "shop", "surface").lock("decide"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def lock_held(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock `decide`."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, url], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("ledger_url", ALL, indirect=True)
def test_a_lock_that_stays_held_is_named_and_one_whose_holder_died_is_free(ledger_url: str) -> None:
    ledger = Ledger(ledger_url, "shop", "surface", lock_s=1)
    with lock_held(ledger_url) as holder:
        holder.send_signal(signal.SIGSTOP)  # As a client that hangs.
        began = time.monotonic()
        with pytest.raises(LedgerBusy, match="not free within 1 s"), ledger.lock("decide"):
            pass
        assert time.monotonic() - began < 10
        holder.kill()
        holder.wait()
        with Ledger(ledger_url, "shop", "surface", lock_s=10).lock("decide"):
            pass


@pytest.mark.parametrize("ledger_url", ALL, indirect=True)
def test_an_error_of_the_locks_body_is_told_as_it_is(ledger_url: str, tmp_path: Path) -> None:
    ledger = Ledger(ledger_url, "shop", "surface")
    elsewhere = sa.create_engine(f"sqlite:///{tmp_path}/missing/shop.db")

    def fail() -> None:
        with ledger.lock("decide") as connection:
            connection.execute(sa.text("delete from freshrank_locks"))
            elsewhere.connect()

    with pytest.raises(OperationalError, match="unable to open database file"):
        fail()
    with ledger.lock("decide"):
        pass


@pytest.mark.services
def test_a_ledger_that_goes_away_does_not_hide_the_error_of_the_body(
    postgres: PostgresServer,
) -> None:
    ledger = Ledger(postgres.url("ledger"), "shop", "surface")

    def fail() -> None:
        with ledger.lock("decide") as connection:
            number = connection.scalar(sa.text("select pg_backend_pid()"))
            with postgres.connect("postgres") as other:
                other.execute(f"select pg_terminate_backend({number})")
            raise ValueError("the body's own")

    with pytest.raises(ValueError, match="the body's own"):
        fail()


@pytest.mark.services
def test_a_postgres_that_takes_no_writes_says_so(postgres: PostgresServer) -> None:
    url = postgres.url("ledger")
    Ledger(url, "shop", "surface")
    ledger = Ledger(f"{url}?options=-c%20default_transaction_read_only=on", "shop", "surface")
    assert ledger.manifests("extract") == []
    with pytest.raises(LedgerReadOnly, match="primary server"):
        ledger.record(Manifest("extract", "t", WEEK, {}, "abc"))


@pytest.mark.services
def test_a_mariadb_that_takes_no_writes_says_so(mariadb: MariadbServer) -> None:
    mariadb.execute("create database readable")
    Ledger(mariadb.url("readable"), "shop", "surface")
    mariadb.execute("create user 'reader'@'%' identified by 'word'")
    mariadb.execute("grant select on readable.* to 'reader'@'%'")
    ledger = Ledger(mariadb.url("readable", "reader", "word"), "shop", "surface")
    with pytest.raises(LedgerReadOnly, match="primary server"):
        ledger.record(Manifest("extract", "t", WEEK, {}, "abc"))


def test_a_sqlite_file_that_takes_no_writes_says_so(tmp_path: Path) -> None:
    Ledger(f"sqlite:///{tmp_path}/ledger.db", "shop", "surface")
    ledger = Ledger(f"sqlite:///file:{tmp_path}/ledger.db?mode=ro&uri=true", "shop", "surface")
    with pytest.raises(LedgerReadOnly, match="the file and its folder"), ledger.lock("decide"):
        pass


@pytest.mark.parametrize("ledger_url", ALL, indirect=True)
@pytest.mark.parametrize("made", range(len(METADATA.tables)))
def test_tables_that_a_kill_left_half_made_are_completed(ledger_url: str, made: int) -> None:
    engine = sa.create_engine(ledger_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for table in METADATA.sorted_tables[:made]:
            connection.execute(sa.schema.CreateTable(table))  # Without its index, as a kill may.
    Ledger(ledger_url, "shop", "surface").record(Manifest("extract", "t", WEEK, {}, "abc"))
    seen = sa.inspect(engine)
    assert set(seen.get_table_names()) == set(METADATA.tables)
    for table in METADATA.sorted_tables:
        assert {each["name"] for each in seen.get_indexes(table.name)} >= {
            each.name for each in table.indexes
        }


@pytest.mark.parametrize("ledger_url", ALL, indirect=True)
def test_several_may_be_the_first_at_once(ledger_url: str) -> None:
    faults: list[BaseException] = []
    gate = threading.Barrier(4)

    def first() -> None:
        gate.wait()
        try:
            Ledger(ledger_url, "shop", "surface").record(Manifest("extract", "t", WEEK, {}, "abc"))
        except BaseException as error:  # noqa: BLE001 - the test shows it
            faults.append(error)

    threads = [threading.Thread(target=first) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
