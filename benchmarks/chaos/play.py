"""Plays a schedule: the history without faults first, then again with them, and compares."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.chaos import attempt, damage, oracle, schedule
from benchmarks.chaos.attempt import Attempt, Ended
from benchmarks.chaos.damage import Damage
from benchmarks.chaos.history import Transaction, Week, history
from benchmarks.chaos.oracle import Facts
from benchmarks.chaos.schedule import Event, Harm, Instant, Twin
from benchmarks.chaos.shop import Home, interval_of
from benchmarks.chaos.steps import Strike
from pipelines.shared.intervals import Interval

ATTEMPTS: Final = 6
"""Attempts after the last fault of a week, within which it has to complete."""
TWIN_ALIVE_S: Final = 12.0
"""Longer than one stage holds the ledger's file, which no sign of life passes."""
WAY_OUT: Final = re.compile(r"\b(run|rerun|restore|repair|clear|mend|make|start|wait|drop|let)\b")
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What a schedule came to."""

    faults: int = 0
    """Events that did happen: a process was hit, something was damaged, a second run began."""
    healed: int = 0
    """Those of weeks after which everything was as a clean run leaves it."""
    rows_lost: int = 0
    rows_doubled: int = 0
    decisions_differing: int = 0
    complaints: list[str] = field(default_factory=list)
    """All that is not as it should be, with seed and week."""
    coverage: set[str] = field(default_factory=set)
    """Steps and effects that were hit."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Clean:
    """A history as it goes without faults."""

    weeks: list[Week]
    traces: list[tuple[str, ...]]
    facts: list[Facts]
    seconds: float
    """Of the longest run of a week."""


def clean(folder: Path, seed: int, weeks: int, heavy: int, say: Say) -> Clean:
    """Live through a history without any fault.

    Raises:
        RuntimeError: a run failed, or left something else than what was committed.
    """
    home = Home(folder)
    home.found()
    made = Clean(history(seed, weeks, heavy), [], [], 0.0)
    longest = 0.0
    for number, week in enumerate(made.weeks):
        for transaction in week.transactions:
            home.commit(transaction)
        home.pass_time(week.end)
        ended = attempt.run_interval(home, interval_of(week)).end()
        if ended.how != "done":
            raise RuntimeError(f"seed {seed}, week {number}, no fault: {ended.how} {ended.error}")
        attempt.adopt(ended.modules)
        known = facts_of(home, made.weeks[: number + 1])
        truth = known["truth"]
        if truth["rows_lost"] or truth["rows_doubled"] or truth["wrong"]:
            raise RuntimeError(f"seed {seed}, week {number}, no fault: {truth}")
        made.traces.append(ended.trace)
        made.facts.append(known)
        longest = max(longest, ended.seconds)
        hostile = ", ".join(week.hostile) or "nothing hostile"
        decided = f"{ended.result['outcome']}, champion {ended.result['champion']}"
        say(f"clean week {number} ({hostile}): {ended.seconds:.1f} s, {decided}")
    return Clean(made.weeks, made.traces, made.facts, longest)


def facts_of(home: Home, weeks: list[Week]) -> Facts:
    """See `oracle.facts`; in a child, for it starts threads."""
    ended = attempt.begin(home.folder / "attempts", lambda _: oracle.facts(home, weeks)).end()
    if ended.how != "done":
        raise RuntimeError(f"the oracle failed: {ended.how} {ended.error}")
    known: Facts = ended.result
    return known


class Play:
    """One installation to which a schedule happens."""

    def __init__(self, folder: Path, seed: int, known: Clean, say: Say) -> None:
        self.home, self.seed, self.known, self.say = Home(folder), seed, known, say
        self.chance = random.Random(f"play {seed}")  # noqa: S311 -- the same damage each time
        # How often it is asked depends on the machine.
        self.pace = random.Random(f"pace {seed}")  # noqa: S311
        self.outcome = Outcome()
        self.due: list[Transaction] = []
        """Of the week that runs and the one after: not committed yet."""
        self.damages: list[Damage] = []
        self.week = 0

    def play(self, events: list[list[Event]]) -> Outcome:
        """Let the weeks pass."""
        began = time.monotonic()
        self.home.found()
        weeks = self.known.weeks
        self.due = list(weeks[0].transactions)
        for self.week, (week, what) in enumerate(zip(weeks, events, strict=True)):
            while self.due:
                self._live()
            if self.week + 1 < len(weeks):
                self.due = list(weeks[self.week + 1].transactions)
            self.home.pass_time(week.end)
            before = self.outcome.faults
            for event in what:
                self._happen(event)
            self._complete()
            self._compare(self.outcome.faults - before)
        self.outcome.seconds = round(time.monotonic() - began, 1)
        return self.outcome

    @property
    def interval(self) -> Interval:
        """The week that runs."""
        return interval_of(self.known.weeks[self.week])

    def _live(self) -> None:
        """The shop goes on: its next transaction is committed."""
        if self.due:
            self.home.commit(self.due.pop(0))

    def _until(self, running: Attempt, deadline: float | None = None) -> None:
        """Wait for an attempt, or for a time, while the shop lives on."""
        while running.running() and (deadline is None or time.monotonic() < deadline):
            if self.pace.random() < 0.2:
                self._live()
            time.sleep(0.1)

    def _happen(self, event: Event) -> None:
        hit, how = False, ""
        if isinstance(event, Strike):
            hit, how = self._strike(event)
        elif isinstance(event, Instant):
            running = attempt.run_interval(self.home, self.interval)
            self._until(running, time.monotonic() + event.part * self.known.seconds)
            if running.running():
                running.kill()
            ended = running.end()
            hit, how = ended.how == "killed", ended.how
            self._judge(ended)
        elif isinstance(event, Harm):
            done = damage.inflict(event.kind, self.home, self.chance)
            if done:
                hit, how = True, done.what
                self.damages.append(done)
                if done.silent:
                    self._mend()
        else:
            hit, how = self._twin(event)
        self.outcome.faults += hit
        self.say(f"week {self.week}: {event}: {how if hit else 'nothing happened, ' + how}")

    def _strike(self, strike: Strike) -> tuple[bool, str]:
        running = attempt.run_interval(self.home, self.interval, strike)
        self._until(running)
        ended = running.end()
        hit = ended.how in ("killed", "error")
        if hit:
            self.outcome.coverage.add(f"{strike.step}: {strike.effect}")
        self._judge(ended)
        return hit, f"{ended.how} {ended.error[:150]}"

    def _twin(self, twin: Twin) -> tuple[bool, str]:
        """Two runs at once; of an overlapping one nothing may begin."""
        other = self.interval
        if twin.interval == "overlapping":
            other = Interval(interval_of(self.known.weeks[self.week - 1]).start, other.end)
        first = attempt.run_interval(self.home, self.interval, alive_s=TWIN_ALIVE_S)
        time.sleep(self.chance.uniform(0, 1))
        second = attempt.run_interval(self.home, other, alive_s=TWIN_ALIVE_S)
        if twin.killed:
            part = self.chance.uniform(0.1, 0.9)
            self._until(first, time.monotonic() + part * self.known.seconds)
            if first.running():
                first.kill()
        self._until(first)
        self._until(second)
        ends = first.end(), second.end()
        for ended in ends:
            overlaps = ended.error.startswith("IntervalOverlaps")
            if not (overlaps and twin.interval == "overlapping"):
                self._judge(ended)
        if twin.interval == "overlapping" and not ends[1].error.startswith("IntervalOverlaps"):
            self._complain(f"an overlapping run ended as {ends[1].how} {ends[1].error}")
        return True, " and ".join(each.error[:100] or each.how for each in ends)

    def _complete(self) -> None:
        """Run the week again until it completes, and do what errors say."""
        self._again(self.interval)
        if self.damages:
            self._mend()
            for each in self.damages:
                if each.rerun:
                    self._again(each.rerun)
            self.damages.clear()

    def _again(self, interval: Interval) -> None:
        for _ in range(ATTEMPTS):
            running = attempt.run_interval(self.home, interval)
            self._until(running)
            ended = running.end()
            if ended.how == "done":
                return
            self._judge(ended)
            self._heal(ended)
        self._complain(f"not complete after {ATTEMPTS} attempts: {ended.error[:500]}")

    def _heal(self, ended: Ended) -> None:
        """What an error of an attempt says is done, as far as somebody has to do it."""
        if "_delta_log" in ended.error or "restore MLflow" in ended.error:
            for each in self.damages:
                each.restore()
        if "CorruptPartition" in ended.error:
            self._mend()

    def _mend(self) -> None:
        """Verify and repair; where a log is damaged, restore it first."""
        for _ in range(2):
            ended = attempt.mend(self.home).end()
            if ended.how == "done":
                return
            self._judge(ended)
            for each in self.damages:
                each.restore()
        self._complain(f"verify and repair do not end: {ended.error[:500]}")

    def _judge(self, ended: Ended) -> None:
        """Errors have to be declared ones that name a way out."""
        if ended.how == "hung":
            self._complain("an attempt hung")
        if ended.how != "error":
            return
        if not (ended.declared or ended.retries_help):
            self._complain(f"an error that nobody declared: {ended.error[:500]}")
        elif ended.declared and not WAY_OUT.search(ended.error):
            self._complain(f"an error without a way out: {ended.error[:500]}")

    def _compare(self, faults: int) -> None:
        weeks = self.known.weeks[: self.week + 1]
        try:
            found, expected = facts_of(self.home, weeks), self.known.facts[self.week]
        except RuntimeError as error:
            self._complain(str(error))
            return
        truth: dict[str, Any] = found["truth"]
        lines = oracle.differences(found, expected)
        self.outcome.rows_lost += truth["rows_lost"]
        self.outcome.rows_doubled += truth["rows_doubled"]
        self.outcome.decisions_differing += sum(line.startswith("/decisions") for line in lines)
        for line in lines[:10]:
            self._complain(line)
        if not lines:
            self.outcome.healed += faults

    def _complain(self, what: str) -> None:
        line = f"seed {self.seed}, week {self.week}: {what}"
        self.outcome.complaints.append(line)
        self.say(line)


def played(folder: Path, seed: int, weeks: int, faults: int, heavy: int, say: Say) -> Outcome:
    """Play the schedule of a seed."""
    known = clean(folder / "clean", seed, weeks, heavy, say)
    events = schedule.draw(seed, known.traces, faults)
    for number, week in enumerate(events):
        for event in week:
            say(f"scheduled in week {number}: {event}")
    return Play(folder / "chaos", seed, known, say).play(events)
