"""Extractions killed at seeded random instants, each made good by a rerun, while writers write."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from benchmarks.corner.extractor import Extractor
from benchmarks.corner.modes import GOODS, MODES, SALES, CaptureMode
from benchmarks.corner.shop import Corner, Fold, opened, same
from benchmarks.corner.writers import Busy
from pipelines.shared.columns import INTERVAL, MISFITS, POSITION, TRANSACTION
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import in_source_order

TABLES = (SALES, GOODS)
ANEW = 12
"""After so many kills a new installation begins, whose first extraction is killed too."""


def survived_everywhere(servers: Mapping[str, Any], folder: Path, kills: int, seed: int) -> int:
    """How many kills extraction survived, spread over the modes whose server is given by its name.

    Raises:
        AssertionError: a rerun left something else than what the source holds.
    """
    modes = [mode for mode in MODES if not mode.server or mode.server in servers]
    each = -(-kills // len(modes))
    return sum(
        survived(mode, servers.get(mode.server), folder / str(mode), each, seed).kills
        for mode in modes
    )


@dataclass(frozen=True)
class Survived:
    """Kills after which a rerun left what the source holds, and how many of them hit."""

    kills: int
    hits: int


def survived(mode: CaptureMode, server: Any, folder: Path, kills: int, seed: int) -> Survived:
    """Kill extractions with signal 9, each at a seeded instant of the time that one takes.

    After each kill the rerun's lake, folded, is compared with the source's rows; lake and ledger
    in the end with those of an installation that nobody killed, where every version is seen.

    Raises:
        AssertionError: a rerun left something else.
    """
    chance = random.Random(seed)  # noqa: S311 -- the same instants each time
    hits = 0
    with (
        opened(mode, server, folder, choose_time=True) as corner,
        Extractor(folder / "extractor.log") as extractor,
        Busy(corner, count=2, pause_s=0.04) as busy,
    ):
        corner.add(*(f"hot {n}" for n in range(3)), *(f"cold {n}" for n in range(500)), stock=0)
        for first in range(0, kills, ANEW):
            history = History(corner, extractor, busy, folder / f"installation {first}")
            for _ in range(min(ANEW, kills - first)):
                history.begin()
                hits += history.kill(chance.random())
                history.rerun()
            history.compare()
    return Survived(kills, hits)


@dataclass
class History:
    """An installation that is killed again and again, and one on the same source that is not."""

    corner: Corner
    extractor: Extractor
    busy: Busy
    folder: Path
    end: datetime | None = field(default=None, init=False)
    took: float = field(default=0.5, init=False)
    """Seconds of the last extraction that was let live."""

    def __post_init__(self) -> None:
        (self.folder / "clean").mkdir(parents=True)
        self._folds = {table: Fold(self.corner, table) for table in TABLES}
        self._intervals = 0

    def begin(self) -> None:
        """A further interval; its clean run comes first, and lets the source keep all."""
        # One row that writers leave alone, so that each interval has a change for every mode.
        self.corner.add(f"still {self.folder.name} {self._intervals}")
        self.busy.work_on(4)
        with self.busy.paused():
            self._cut()
        if self.corner.mode.versions:
            self._live(self.folder / "clean", release=False)

    def kill(self, part: float) -> bool:
        """Kill an extraction at a part of the time that it takes; whether it was still running."""
        process = self.extractor.start(self.corner, self.folder, self._interval)
        time.sleep(part * self.took)
        os.kill(process, signal.SIGKILL)
        return self._killed()

    def die(self, step: str) -> bool:
        """Let an extraction die at a step; whether it came by there."""
        self.extractor.start(self.corner, self.folder, self._interval, step)
        return self._killed()

    def rerun(self) -> None:
        """Extract the interval again, and hold the lake against the source."""
        self._live(self.folder)
        self._fold()
        if self.corner.mode.versions:
            self._equals_source()
            return
        # Rows that change meanwhile come with the next interval: nobody writes during that.
        with self.busy.paused():
            self._cut()
            self._live(self.folder)
            self._fold()
            self._equals_source()

    def compare(self) -> None:
        """Hold the ledger against the lake, and both against those of the clean runs."""
        kept = self._outcome(self.folder)
        assert len(kept) == len(TABLES) * self._intervals
        if self.corner.mode.versions:
            assert kept == self._outcome(self.folder / "clean")

    def _cut(self) -> None:
        start = self.end
        self.end = self.corner.cut(whole=True)
        self._interval = Interval(start or self.end - timedelta(seconds=1), self.end)
        self._present = {table: self.corner.present(table) for table in TABLES}
        self._intervals += 1

    def _live(self, folder: Path, release: bool = True) -> None:
        began = time.monotonic()
        self.extractor.start(self.corner, folder, self._interval, release=release)
        assert not self._killed()
        self.took = time.monotonic() - began

    def _killed(self) -> bool:
        code = self.extractor.wait()
        assert code in (0, -signal.SIGKILL), self.extractor.errors()
        return code != 0

    def _fold(self) -> None:
        for table in TABLES:
            self._folds[table].add(self._partition(self.folder, table, self._interval.key))

    def _equals_source(self) -> None:
        for table in TABLES:
            same(self._folds[table].state(), self._present[table])

    def _partition(self, folder: Path, table: str, key: str) -> pa.Table:
        run = self.corner.run(self._interval, folder)
        rows = run.lake.read(f"changes/{table}", [key])
        return rows.drop_columns([INTERVAL, MISFITS])  # Neither is in a partition's hash.

    def _outcome(self, folder: Path) -> list[Any]:
        """What ledger and lake say of each interval, less what differs from look to look.

        That are times, and the numbers that the rows found got: they come from when they were
        found. Only the order of each key's changes means something there.
        """
        with sa.create_engine(f"sqlite:///{folder}/ledger.db").connect() as connection:
            table = sa.Table("freshrank_manifests", sa.MetaData(), autoload_with=connection)
            rows = connection.execute(sa.select(table)).mappings().all()
        outcome = []
        for row in rows:
            held = self._partition(folder, row["subject"], row["interval_start"])
            assert content_hash(in_source_order(held)) == row["content_hash"]
            key = self.corner.shop.tables[row["subject"]].key
            by_key = held.sort_by([(name, "ascending") for name in (*key, POSITION)])
            content = content_hash(by_key.drop_columns([POSITION, TRANSACTION]))
            outcome.append([row["interval_start"], row["subject"], row["counts"], content])
        return sorted(outcome, key=lambda each: each[:2])
