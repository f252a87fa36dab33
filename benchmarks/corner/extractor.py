"""Extractions in processes that can be killed: all is imported once, each run is a fork of that.

`python -m benchmarks.corner.extractor` reads a task, one JSON line, and answers with the process id
of the fork; after a further line it waits for that and answers with its exit code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg  # noqa: F401 -- imported once, for every fork
import pymysqlreplication  # noqa: F401
from adbc_driver_postgresql import dbapi  # noqa: F401
from duckdb import connect  # noqa: F401

from benchmarks.corner.modes import GOODS, MODES, SALES, AnyInterval, declared
from benchmarks.corner.shop import Corner
from pipelines.extract import partition, stage
from pipelines.extract.binlog import source  # noqa: F401
from pipelines.extract.modes import mode
from pipelines.extract.wal import slot
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import Ledger

PROJECT = Path(__file__).parents[2]
STEPS = (
    "before the rows",
    "among the rows",
    "before the rows are durable",
    "before the manifest",
    "before the manifest is committed",
    "before the release",
    "during the release",
)
"""Where an extraction can be killed by name: the steps of the protocol, in order."""


class Extractor:
    """The forking process, as its parent sees it; one extraction at a time."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> Extractor:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.corner.extractor"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=PROJECT,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(
        self, corner: Corner, folder: Path, interval: Interval, die: str = "", release: bool = True
    ) -> int:
        """Extract both tables into an installation; returns the process id.

        It kills itself at the step `die` of the second table's extraction; only with `release` may
        the source let go of what was extracted.
        """
        task = {
            "name": str(corner.mode), "url": corner.url, "schema": corner.shop.source.schema_name,
            "folder": str(folder), "start": interval.start.isoformat(),
            "end": interval.end.isoformat(), "die": die, "release": release,
        }  # fmt: skip
        self._tell(json.dumps(task))
        return self._answer()

    def wait(self) -> int:
        """The exit code of the extraction; a signal is negative. Until then its id is its own."""
        self._tell("wait")
        return self._answer()

    def errors(self) -> str:
        """What extractions wrote about their errors."""
        return self._log.read_text()[-3000:]

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.errors()
        return int(line)


def _main() -> None:
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            _run(**json.loads(line))
        print(child, flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(
    name: str, url: str, schema: str, folder: str, start: str, end: str, die: str, release: bool
) -> None:
    try:
        shop = declared(next(each for each in MODES if str(each) == name), schema)
        settings = Corner.settings_of(url, Path(folder))
        interval = Interval(datetime.fromisoformat(start), datetime.fromisoformat(end))
        run = AnyInterval(settings, shop, interval)
        for table in (SALES, GOODS):
            if die and table == GOODS:
                _arm(die)
            if release:
                stage.run(run, table)
            else:
                stage.extract(run, table, mode(url, shop).source(url, shop, settings))
    except BaseException:  # noqa: BLE001 -- a fork must not go on as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _arm(step: str) -> None:
    """Let this process kill itself at a step."""

    def at(name: str) -> None:
        if step == name:
            os.kill(os.getpid(), signal.SIGKILL)

    def between(before: str, call: Callable[..., Any], after: str) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            at(before)
            result = call(*arguments)
            at(after)
            return result

        return called

    def through(written: Any, batches: Any) -> Iterator[Any]:
        for batch in read(written, batches):
            yield batch
            at("among the rows")
        at("before the rows are durable")

    @contextmanager
    def opened(url: str) -> Iterator[Any]:
        with open_database(url) as connection:
            yield connection
            at("during the release")

    read, open_database = partition.Written.through, slot.open_database
    partition.Written.through = through  # type: ignore[assignment, method-assign]
    Lake.replace = between("before the rows", Lake.replace, "before the manifest")  # type: ignore[method-assign]
    committed = "before the manifest is committed"
    Ledger.record = between("", Ledger.record, committed)  # type: ignore[method-assign]
    stage.extract = between("", stage.extract, "before the release")
    slot.open_database = opened


if __name__ == "__main__":
    _main()
