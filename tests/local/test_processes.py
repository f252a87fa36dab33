"""Services are launched, found again by another process, and stopped with their children."""

import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from local.errors import ServiceFailedError
from local.processes import LOOPBACK, Register, Service, free_port, launch, stop, wait_ready

WITH_CHILD = (
    "import subprocess, sys, time; "
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
)
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); " + (
    "time.sleep(60)"
)


def run(tmp_path: Path, code: str, name: str = "probe") -> Service:
    return launch(name, [sys.executable, "-c", code], environment={}, log=tmp_path / "logs" / name)


def test_a_service_is_found_again_through_the_register(tmp_path: Path) -> None:
    service = run(tmp_path, "import time; time.sleep(60)")
    Register(tmp_path / "services.json").add(service)
    assert Register(tmp_path / "services.json").running() == {"probe": service}
    stop([service], 5, signal.SIGTERM)
    assert Register(tmp_path / "services.json").running() == {}
    assert Register(tmp_path / "services.json").read() == {"probe": service}


def test_a_process_of_the_same_id_but_another_time_is_a_stranger(tmp_path: Path) -> None:
    service = run(tmp_path, "import time; time.sleep(60)")
    stranger = replace(service, started_s=service.started_s - 100)
    assert stranger.process() is None
    stop([stranger], 1, signal.SIGTERM)
    assert service.process() is not None
    stop([service], 5, signal.SIGTERM)


def test_children_are_stopped_too(tmp_path: Path) -> None:
    service = run(tmp_path, WITH_CHILD)
    leader = psutil.Process(service.pid)
    deadline = time.monotonic() + 10
    while not leader.children() and time.monotonic() < deadline:
        time.sleep(0.02)
    (child,) = leader.children()
    stop([service], 5, signal.SIGTERM)
    assert service.process() is None
    assert not child.is_running()


def test_what_a_killed_service_started_is_found_and_stopped(tmp_path: Path) -> None:
    service, register = run(tmp_path, WITH_CHILD), Register(tmp_path / "services.json")
    register.add(service)
    leader = psutil.Process(service.pid)
    deadline = time.monotonic() + 10
    while not leader.children() and time.monotonic() < deadline:
        time.sleep(0.02)
    (child,) = leader.children()
    assert register.orphaned() == {}
    leader.kill()
    leader.wait()
    assert register.orphaned() == {"probe": service}
    assert replace(service, log=str(tmp_path / "elsewhere" / "log")).session() == []
    stop([service], 1, signal.SIGTERM)
    assert register.orphaned() == {}
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_what_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.processes.PATIENCE_S", 0.1)
    monkeypatch.setattr("local.processes.LEFTOVER_GRACE_S", 0.1)
    service = run(tmp_path, STUBBORN)
    wait_ready(service, lambda: "up" in Path(service.log).read_text(), 10)
    stop([service], 0.1, signal.SIGTERM)
    assert service.process() is None


def test_a_service_that_ends_early_says_why(tmp_path: Path) -> None:
    service = run(tmp_path, "raise SystemExit('the port is taken')")
    with pytest.raises(ServiceFailedError, match=r"(?s)probe ended while starting.*port is taken"):
        wait_ready(service, lambda: False, 10)


def test_waiting_has_an_end(tmp_path: Path) -> None:
    service = run(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(ServiceFailedError, match="not ready after 0 s"):
        wait_ready(service, lambda: False, 0.1)
    stop([service], 5, signal.SIGTERM)


def test_a_taken_port_is_not_given() -> None:
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert free_port(taken) != taken
    assert free_port(taken) == taken
