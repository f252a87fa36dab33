"""A schedule of faults, drawn from a seed and from the steps that a clean run passes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos import damage
from benchmarks.chaos.steps import Strike, effects_of


@dataclass(frozen=True)
class Instant:
    """The run is killed when a part of the time of a clean run has passed."""

    part: float

    def __str__(self) -> str:
        return f"kill after {self.part:.0%} of the time"


@dataclass(frozen=True)
class Harm:
    """Something is damaged before the next attempt."""

    kind: str

    def __str__(self) -> str:
        return f"damage: {self.kind}"


@dataclass(frozen=True)
class Twin:
    """A second run at the same time."""

    interval: str
    """`same` or `overlapping`."""
    killed: bool
    """Whether the first of the two is killed meanwhile."""

    def __str__(self) -> str:
        dies = ", and the first is killed" if self.killed else ""
        return f"a second run of the {self.interval} interval at the same time{dies}"


Event = Strike | Instant | Harm | Twin


def draw(seed: int, traces: Sequence[Sequence[str]], faults: int) -> list[list[Event]]:
    """What happens in each week.

    The steps come in a shuffled order of all their names and effects, so that seeds together come
    by every one of them.

    Args:
        traces: for each week the steps that its clean run passed.
        faults: number of events a week.
    """
    chance = random.Random(f"schedule {seed}")  # noqa: S311 -- the same schedule each time
    chosen: set[tuple[str, str]] = set()
    return [_week(chance, trace, faults, place, chosen) for place, trace in enumerate(traces)]


def _week(
    chance: random.Random,
    trace: Sequence[str],
    faults: int,
    place: int,
    chosen: set[tuple[str, str]],
) -> list[Event]:
    """Steps in the order of a run, of which each attempt comes further; a second run comes last.

    What is done is not done again, and steps of it would not be passed once more.
    """
    others: list[Event] = [Instant(round(chance.uniform(0.05, 0.95), 2))]
    if place > 0:
        others.append(Harm(chance.choice(damage.KINDS)))
    twins: list[Event] = []
    if place > 0 and chance.random() < 0.5:
        twins.append(Twin(chance.choice(["same", "overlapping"]), chance.random() < 0.5))
    steps = Counter(trace)
    every = [(step, effect) for step in sorted(steps) for effect in effects_of(step)]
    fresh = [each for each in every if each not in chosen]
    wanted = min(len(fresh), max(0, faults - len(others) - len(twins)))
    drawn = sorted(chance.sample(fresh, wanted), key=lambda each: trace.index(each[0]))
    chosen.update(drawn)
    events: list[Event] = [
        Strike(step, chance.randint(1, steps[step]), effect) for step, effect in drawn
    ]
    for other in others:
        events.insert(chance.randint(0, len(events)), other)
    return [*events, *twins]
