"""The named steps of a run, and what can happen at one: set up in a child process only.

Everything durable goes through a few functions. Each is wrapped by one that counts the step, and
before or after the chosen one lets the fault happen.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, Literal, NoReturn

Effect = Literal["kill before", "kill after", "full", "cut"]
FILES: Final = ("write", "model file", "page", "mlflow log_artifacts", "mlflow log_model_artifacts")
"""Steps that write files: the disk may be full. By the first words of their names."""
TRACKED: Final = (
    "create_experiment", "create_run", "log_batch", "log_inputs", "log_artifacts",
    "create_registered_model", "create_logged_model", "log_model_artifacts",
    "finalize_logged_model", "create_model_version", "set_terminated", "delete_run",
    "set_registered_model_alias", "set_model_version_tag", "set_tag",
)  # fmt: skip


@dataclass(frozen=True)
class Strike:
    """What happens to a run, and where."""

    step: str
    nth: int
    effect: Effect

    def __str__(self) -> str:
        return f"{self.effect} at {self.step!r} ({self.nth})"


def effects_of(step: str) -> tuple[Effect, ...]:
    """What can happen at a step."""
    if step.startswith("mlflow") and not step.startswith(FILES):
        return ("kill before", "kill after", "cut")
    if step.startswith("write"):
        return ("kill before", "kill after", "full", "cut")
    if step.startswith(FILES):
        return ("kill before", "kill after", "full")
    if step.startswith(("replace", "model")):
        return ("kill before", "kill after")
    return ("kill before", "kill after", "cut")


class Steps:
    """Counts the steps of this process, and strikes at one."""

    def __init__(self, strike: Strike | None, trace: Callable[[str], None]) -> None:
        self.strike, self.trace = strike, trace
        self.seen: Counter[str] = Counter()
        self.cut = False

    def before(self, step: str) -> None:
        """A step begins."""
        self.seen[step] += 1
        self.trace(step)
        if self._chosen(step, "kill before", "full", "cut"):
            self._happen(step)

    def after(self, step: str) -> None:
        """A step is done."""
        if self._chosen(step, "kill after"):
            die()

    def statement(self) -> None:
        """SQLAlchemy sends a statement."""
        if self.cut and threading.current_thread() is threading.main_thread():
            self.cut = False
            raise sqlite3.OperationalError("the connection was cut")

    def _chosen(self, step: str, *effects: Effect) -> bool:
        strike = self.strike
        return (
            strike is not None
            and (strike.step, strike.nth) == (step, self.seen[step])
            and strike.effect in effects
        )

    def _happen(self, step: str) -> None:
        effect = self.strike.effect if self.strike else None
        if effect == "kill before":
            die()
        if effect == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if step.startswith(("mlflow", "write")):
            raise ConnectionResetError(errno.ECONNRESET, "the connection was cut")
        if step == "source":
            raise sqlite3.OperationalError("the connection was cut")
        self.cut = True

    def wrap(self, owner: Any, name: str, step: Callable[..., str]) -> None:
        """Count a function as a step; `step` gets its arguments and names it."""
        function = getattr(owner, name)

        @wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            passed = step(*arguments, **named)
            self.before(passed)
            result = function(*arguments, **named)
            self.after(passed)
            return result

        setattr(owner, name, wrapped)


def die() -> NoReturn:
    """End this process with signal 9."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives signal 9")


def install(steps: Steps) -> None:
    """Wrap what everything durable goes through, in this process."""
    from mlflow import MlflowClient
    from sqlalchemy.engine.default import DefaultDialect

    from pipelines.extract.trigger.numbered.sqlite.session import SqliteSession
    from pipelines.publish.table import PublishedTable
    from pipelines.shared import partition_writer
    from pipelines.shared.lake import Lake
    from pipelines.shared.ledger import Ledger
    from pipelines.shared.ledger.turns import Turns
    from pipelines.shared.models import booster
    from pipelines.validate import stage as validate

    steps.wrap(Lake, "replace", lambda lake, table, *_: f"replace {table}")
    steps.wrap(partition_writer, "write_deltalake", lambda to, *_, **__: f"write {_table(to)}")
    steps.wrap(partition_writer, "_sync_commits", lambda uri, *_: f"sync {_table(uri)}")
    steps.wrap(booster, "save", lambda *_: "model save")
    steps.wrap(booster, "sync", lambda *_: "model file")
    steps.wrap(validate, "write_data_docs", lambda *_: "page")
    steps.wrap(Ledger, "record", lambda _, each, *__: f"record {each.stage} {each.subject}")
    steps.wrap(Ledger, "decide", lambda *_: "decide")
    steps.wrap(Ledger, "add_version", lambda *_: "add version")
    steps.wrap(Turns, "take", lambda *_: "turn take")
    steps.wrap(Turns, "release", lambda *_: "turn release")
    steps.wrap(PublishedTable, "replace", lambda *_: "publish")
    steps.wrap(PublishedTable, "_insert", lambda *_: "publish rows")
    steps.wrap(SqliteSession, "stream", lambda *_: "source")
    for name in TRACKED:
        steps.wrap(MlflowClient, name, lambda *_, name=name, **__: f"mlflow {name}")
    if steps.strike and steps.strike.step.startswith("mlflow") and steps.strike.effect == "cut":
        _as_a_server()
    dialect: Any = DefaultDialect
    execute = dialect.do_execute

    def watched(*arguments: Any, **named: Any) -> Any:
        steps.statement()
        return execute(*arguments, **named)

    dialect.do_execute = watched


def _table(place: Any) -> str:
    from benchmarks.chaos.shop import SHOP

    uri = place if isinstance(place, str) else place.table_uri
    return str(uri).rstrip("/").rpartition(f"lake/{SHOP}/")[2]


def _as_a_server() -> None:
    """Let MLflow's file count as a server, whose cut connection is one of its own errors."""
    from pipelines.evaluate.tracking import mlflow_tracker
    from pipelines.promote import registry
    from pipelines.shared import mlflow_server

    mlflow_server._SERVERS = ("http://", "https://", "sqlite://")  # type: ignore[assignment]
    for module in (mlflow_tracker, registry):
        vars(module)["require_reachable"] = lambda uri: None
