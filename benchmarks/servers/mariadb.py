"""A private MariaDB with a row binlog, for benchmarks and tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
from sqlalchemy import make_url

from local.errors import ServiceFailedError
from local.processes import (
    LOOPBACK,
    Service,
    free_port,
    launch,
    stop,
    wait_ready,
)

OWNER, PASSWORD = "freshrank", "owner's word"
LOG_SETTINGS = (
    "--log-bin=binlog", "--binlog-format=ROW", "--binlog-row-image=FULL",
    "--binlog-row-metadata=FULL",
)  # fmt: skip
_SETTINGS = (
    "--server-id=11", f"--bind-address={LOOPBACK}", "--skip-name-resolve", "--socket=s.sock",
    "--pid-file=pid", "--default-time-zone=+02:00", "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=2", "--key-buffer-size=1M",
    "--max-allowed-packet=64M", "--performance-schema=0", "--character-set-server=utf8mb4",
)  # fmt: skip


@dataclass
class MariadbServer:
    """A server that can be stopped and started again on the same data."""

    folder: Path
    port: int
    log_settings: tuple[str, ...] = LOG_SETTINGS
    service: Service | None = field(default=None, init=False)

    def start(self) -> None:
        account = _account()
        self.service = launch(
            "mariadbd",
            [
                _binary("mariadbd"), "--no-defaults", f"--datadir={self.folder / 'data'}",
                f"--port={self.port}", f"--init-file={self.folder / 'first.sql'}",
                # A server that starts deletes every temporary table in its folder for them.
                f"--tmpdir={self.folder}",
                *_SETTINGS, *self.log_settings,
            ],
            environment={**os.environ, "LC_ALL": "C"},
            log=self.folder / "mariadb.log",
            port=self.port,
            account=account,
        )  # fmt: skip
        wait_ready(self.service, self._answers, 60.0)

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.service is not None:
            stop([self.service], 20.0, how)

    def url(self, database: str = "", user: str = OWNER, password: str = PASSWORD) -> str:
        # Reading the machine's certificates for each connection would take most of a test's time.
        plain = make_url(f"mysql+pymysql://{LOOPBACK}:{self.port}/{database}?ssl_disabled=1")
        return plain.set(username=user, password=password).render_as_string(hide_password=False)

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        with connect(self.url("mysql")) as db, db.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except pymysql.OperationalError:
            return False
        return True


def installed() -> bool:
    """Whether this machine has a MariaDB server."""
    return bool(_binary("mariadbd"))


@contextmanager
def server(log_settings: tuple[str, ...] = LOG_SETTINGS) -> Iterator[MariadbServer]:
    """A throwaway server for the length of a with block.

    Its folder is not one of pytest's: each new session of pytest closes those to other accounts.

    Raises:
        ServiceFailedError: MariaDB is not installed, or does not start.
    """
    if not installed():
        raise ServiceFailedError("mariadbd is not installed: sudo apt-get install mariadb-server")
    with tempfile.TemporaryDirectory(prefix="freshrank-mariadb-") as folder:
        running = _initialised(Path(folder), log_settings)
        try:
            running.start()
            yield running
        finally:
            running.stop(signal.SIGKILL)


def _initialised(folder: Path, log_settings: tuple[str, ...]) -> MariadbServer:
    account = _account()
    # Not logged: it runs at each start, by the server's clock, which tests may have run ahead of.
    (folder / "first.sql").write_text(
        "SET SESSION sql_log_bin = 0;\n"
        f'CREATE USER IF NOT EXISTS {OWNER}@{LOOPBACK!r} IDENTIFIED BY "{PASSWORD}";\n'
        f"GRANT ALL ON *.* TO {OWNER}@{LOOPBACK!r} WITH GRANT OPTION;\n"
    )
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    made = subprocess.run(
        [
            _binary("mariadb-install-db"), "--no-defaults", f"--datadir={folder / 'data'}",
            "--skip-test-db", "--innodb-log-file-size=16M",
        ],
        capture_output=True, text=True, check=False, cwd="/",
        env={**os.environ, "TMPDIR": str(folder)},
        user=account.pw_uid if account else None, group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )  # fmt: skip
    if made.returncode:
        raise ServiceFailedError(f"mariadb-install-db failed: {made.stdout}{made.stderr}")
    return MariadbServer(folder, free_port(), log_settings)


def _binary(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin") or ""


def _account() -> pwd.struct_passwd | None:
    """MariaDB refuses to run as root; its package brings the account `mysql`."""
    return pwd.getpwnam("mysql") if os.geteuid() == 0 else None


@contextmanager
def database(running: MariadbServer, tables: str = "") -> Iterator[str]:
    """A database with the given tables; yields its URL and drops it in the end."""
    name = f"shop_{uuid.uuid4().hex[:12]}"
    running.execute(f"CREATE DATABASE {name}")
    with connect(running.url(name)) as db, db.cursor() as cursor:
        for statement in filter(str.strip, tables.split(";")):
            cursor.execute(statement)
    try:
        yield running.url(name)
    finally:
        running.execute(f"DROP DATABASE {name}")


def connect(url: str, autocommit: bool = True) -> Any:
    """A connection in UTC; as a context manager it closes in the end."""
    address = make_url(url)
    return pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.username,
        password=address.password,
        database=address.database or None,
        charset="utf8mb4",
        ssl_disabled=True,
        autocommit=autocommit,
        init_command="SET time_zone = '+00:00'",
    )
