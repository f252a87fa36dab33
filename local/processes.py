"""Child processes that outlive their starter: launch, find again, wait for and stop them."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from pwd import struct_passwd

import psutil

from local.errors import ServiceFailedError
from local.home import write_private

LOOPBACK = "127.0.0.1"
POLL_S = 0.05
LOG_LINES_SHOWN = 15
PATIENCE_S = 3.0
LEFTOVER_GRACE_S = 3.0
KILL_GRACE_S = 5.0
PRIVATE_UMASK = 0o077
"""What is written only its owner may read."""


@dataclass(frozen=True)
class Service:
    """A started service. The start time tells its process from a later one of the same id."""

    name: str
    pid: int
    started_s: float
    port: int | None
    log: str

    def process(self) -> psutil.Process | None:
        """The running process, or None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_s) < 1.0
            alive = same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None

    def session(self) -> list[psutil.Process]:
        """Every living process of the session it began, also after the first one was killed.

        Of a number that was given out again since, only what works in the service's own folder.
        """
        with suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(self.pid).create_time() - self.started_s) >= 1.0:
                return []
        folder = Path(self.log).parent.resolve()
        return [each for each in psutil.process_iter() if _is_of(each, self.pid, folder)]

    def url(self) -> str:
        """Where the service answers over HTTP."""
        return f"http://{LOOPBACK}:{self.port}"


@dataclass(frozen=True)
class Register:
    """The file that remembers which process serves what."""

    path: Path

    def read(self) -> dict[str, Service]:
        """Every service that was started and not stopped, by name."""
        try:
            stored = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        return {name: Service(**entry) for name, entry in stored.items()}

    def running(self) -> dict[str, Service]:
        """The services whose process is alive."""
        return {name: service for name, service in self.read().items() if service.process()}

    def orphaned(self) -> dict[str, Service]:
        """The services whose first process has ended while others of its session live on."""
        ended = (entry for entry in self.read().items() if entry[1].process() is None)
        return {name: service for name, service in ended if service.session()}

    def add(self, service: Service) -> None:
        """Remember a service, in place of an earlier one of its name."""
        self._write({**self.read(), service.name: service})

    def remove(self, names: Iterable[str]) -> None:
        """Forget services."""
        gone = set(names)
        self._write({name: entry for name, entry in self.read().items() if name not in gone})

    def _write(self, services: Mapping[str, Service]) -> None:
        entries = {name: asdict(service) for name, service in services.items()}
        write_private(self.path, json.dumps(entries, indent=2) + "\n")


def free_port(preferred: int | None = None) -> int:
    """A port nobody listens on, on loopback: the preferred one if it is free."""
    for port in (preferred or 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceFailedError(f"no free port on {LOOPBACK}; stop something that listens there")


def launch(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    port: int | None = None,
    account: struct_passwd | None = None,
    inherited: Sequence[int] = (),
) -> Service:
    """Start a command in a session of its own, its output going to the log file.

    What it writes only its account may read. It inherits the open files of some numbers.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=PRIVATE_UMASK,
            pass_fds=inherited,
            cwd=log.parent if account is None else "/",
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
        )
    started_s = psutil.Process(process.pid).create_time()
    # The register, not this object, says when the process is over.
    process.returncode = 0
    return Service(name, process.pid, started_s, port, str(log))


def wait_ready(service: Service, ready: Callable[[], bool], timeout_s: float) -> None:
    """Return as soon as the service answers.

    Raises:
        ServiceFailedError: the process ended first, or the time was over.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        if service.process() is None:
            raise ServiceFailedError(f"{service.name} ended while starting; {log_tail(service)}")
        if time.monotonic() > deadline:
            raise ServiceFailedError(
                f"{service.name} was not ready after {timeout_s:.0f} s; {log_tail(service)}"
            )
        time.sleep(POLL_S)


def log_tail(service: Service) -> str:
    """The last lines of a service's log, introduced by the file's name."""
    lines = Path(service.log).read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    return f"the end of {service.log}:\n" + "\n".join(f"  {line}" for line in lines)


def stop(services: Iterable[Service], grace_s: float, signal_number: int) -> None:
    """End services and everything they started, also where the first process was killed before.

    What is left after the grace time is killed.
    """
    services = list(services)
    leaders = [process for service in services if (process := service.process())]
    family = {process.pid: process for service in services for process in service.session()}
    for leader in leaders:
        with suppress(psutil.NoSuchProcess):
            family.update({child.pid: child for child in leader.children(recursive=True)})
    _signal(leaders, signal_number)
    # The second signal means "do not wait": to Airflow's scheduler for running tasks, to its
    # triggerer for a child that sometimes listens only after ten seconds.
    _signal(_wait(leaders, PATIENCE_S), signal_number)
    _wait(leaders, grace_s)
    family.update({process.pid: process for service in services for process in service.session()})
    end(family.values())


def end(processes: Iterable[psutil.Process]) -> None:
    """Ask processes to end, and kill those that do not."""
    left = _wait(list(processes), 0)
    _signal(left, signal.SIGTERM)
    left = _wait(left, LEFTOVER_GRACE_S)
    _signal(left, signal.SIGKILL)
    _wait(left, KILL_GRACE_S)


def _is_of(process: psutil.Process, session: int, folder: Path) -> bool:
    """Whether a living process is a session's first, or works for it in a folder."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE or os.getsid(process.pid) != session:
            return False
        return process.pid == session or Path(process.cwd()) == folder
    except (psutil.Error, ProcessLookupError, PermissionError):
        return False


def _wait(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait for the processes; the ones still alive afterwards."""
    alive: list[psutil.Process] = psutil.wait_procs(processes, timeout=timeout_s)[1]
    return alive


def _signal(processes: list[psutil.Process], signal_number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal_number)
