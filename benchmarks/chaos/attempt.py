"""One attempt at an interval, in a process of its own that may die at any instant."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.chaos import steps
from benchmarks.chaos.shop import SHOP, Home
from benchmarks.chaos.steps import Steps, Strike
from pipelines.shared.intervals import Interval

LIMIT_S = 300.0
"""An attempt that takes longer hangs: it is ended, and counts as a fault of the product."""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended."""

    how: str
    """`done`, `killed`, `error`, or `hung`."""
    seconds: float
    trace: tuple[str, ...] = ()
    """The steps that it passed."""
    error: str = ""
    declared: bool = True
    """Whether the error is one that Freshrank declares."""
    permanent: bool = False
    retries_help: bool = False
    result: Any = None
    modules: tuple[str, ...] = ()
    """What it imported that its parent had not."""


@dataclass
class Attempt:
    """A process that was started."""

    process: int
    answer: Path
    began: float = field(default_factory=time.monotonic)

    def running(self) -> bool:
        """Whether it has not ended; does not reap it."""
        ended = os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is None

    def kill(self) -> None:
        """End it with signal 9."""
        os.kill(self.process, signal.SIGKILL)

    def end(self) -> Ended:
        """Wait for its end."""
        hung = False
        while self.running():
            if time.monotonic() - self.began > LIMIT_S:
                hung = True
                self.kill()
            time.sleep(0.02)
        os.waitpid(self.process, 0)
        seconds = round(time.monotonic() - self.began, 2)
        trace_file = self.answer.with_suffix(".trace")
        trace = tuple(trace_file.read_text("utf-8").splitlines()) if trace_file.exists() else ()
        if self.answer.exists():
            return Ended(seconds=seconds, trace=trace, **json.loads(self.answer.read_text("utf-8")))
        return Ended("hung" if hung else "killed", seconds, trace)


def begin(folder: Path, work: Callable[[Callable[[str], None]], Any]) -> Attempt:
    """Fork a child that does some work; what the work returns has to be JSON-able.

    The parent has to have no thread.

    Args:
        folder: where the child writes its answer and its log.
        work: gets a function that notes a step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder / f"{time.monotonic_ns()}.json"
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return Attempt(process, answer)
    try:
        _work(answer, work)
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
        traceback.print_exc()
    os._exit(0)


def _work(answer: Path, work: Callable[[Callable[[str], None]], Any]) -> None:
    from pipelines.shared.errors import FreshrankError, PermanentError, TransientError

    known = set(sys.modules)
    log = os.open(answer.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    trace = os.open(answer.with_suffix(".trace"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        result = work(lambda step: _note(trace, step))
        ended = {"how": "done", "result": result, "modules": sorted(set(sys.modules) - known)}
    except Exception as error:  # noqa: BLE001 - how it ended is what is asked
        traceback.print_exc()
        ended = {
            "how": "error", "error": f"{type(error).__name__}: {error}",
            "declared": isinstance(error, FreshrankError),
            "permanent": isinstance(error, PermanentError),
            "retries_help": isinstance(error, (TransientError, OSError)),
        }  # fmt: skip
    part = answer.with_suffix(".part")
    part.write_text(json.dumps(ended, default=str), "utf-8")
    part.replace(answer)


def _note(trace: int, step: str) -> None:
    os.write(trace, f"{step}\n".encode())


def adopt(modules: Iterable[str]) -> None:
    """Import in this process what a child had to import, so that the next need not."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001, S112 - a child imports it again, as that one did
            continue


def run_interval(
    home: Home, interval: Interval, strike: Strike | None = None, alive_s: float = 0.0
) -> Attempt:
    """Take an interval through every stage, and publish, in a child.

    Args:
        alive_s: seconds after its last sign of life within which another run is not taken over;
            without any the child takes over at once, so it has to be alone.
    """

    def work(note: Callable[[str], None]) -> Any:
        from pipelines import loop
        from pipelines.shared import turn
        from pipelines.shared.ledger import turns
        from pipelines.shared.run import Run

        turns.ALIVE_FOR = timedelta(seconds=alive_s)  # type: ignore[misc]
        turn.BEAT_S = max(alive_s / 10, 0.5)  # type: ignore[misc]
        turn._ASK_S = 0.2  # type: ignore[misc]
        steps.install(Steps(strike, note))
        run = Run.of(home.settings, SHOP, interval)
        decided = loop.run_interval(run, lambda stage, line: print(stage, line, flush=True))
        return {**decided, "published": loop.publish(run)}

    return begin(home.folder / "attempts", work)


def mend(home: Home) -> Attempt:
    """Verify the lake, repair what is found, and verify it again, in a child."""

    def work(note: Callable[[str], None]) -> Any:
        from pipelines import maintain
        from pipelines.shared.ledger import turns
        from pipelines.shared.run import Installation

        del note
        # Training wants the turn, which a killed run may still have.
        turns.ALIVE_FOR = timedelta(0)  # type: ignore[misc]
        installation = Installation.open(home.settings, SHOP)
        faults = maintain.verify(installation).faults
        repaired = maintain.repair(installation, faults)
        maintain.verify(installation).required()
        return {"faults": [each.as_dict() for each in faults], "repaired": repaired}

    return begin(home.folder / "attempts", work)
