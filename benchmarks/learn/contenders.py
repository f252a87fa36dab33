"""The ways to learn that `benchmarks learn` sets side by side, each over the same weeks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.learn.years import WEEK
from benchmarks.validated_lake import FIRST
from pipelines.evaluate import holdouts, metrics
from pipelines.evaluate.metrics import Ranked
from pipelines.shared import columns as c
from pipelines.shared.intervals import Interval
from pipelines.shared.models import booster
from pipelines.shared.run import Run
from pipelines.train import drift, policy, preselection, strategies
from pipelines.train.data import groups, replay
from pipelines.train.data.examples import Examples, joined
from pipelines.train.data.groups import Catalogue, Selection
from pipelines.train.drift import Health
from pipelines.train.history import History, TrainingCost
from pipelines.train.material import Material
from pipelines.train.models import boosting, trees
from pipelines.train.policy import PolicyState
from pipelines.train.strategies import STRATEGIES
from pipelines.train.trainers import local
from pipelines.train.trainers.job import Job

WINDOW_WEEKS: Final = 8
BASELINE: Final = "own frequency"


@dataclass(frozen=True)
class Held:
    """Groups to be ranked, with all their candidates."""

    rows: pa.Table
    ranked: Ranked
    own: np.ndarray
    """n orders of the item by the shopper."""


@dataclass
class Weeks:
    """A year's weeks, from 0, as a lake holds them; what is learned from is read once."""

    run: Run
    catalogue: Catalogue
    _read: dict[int, Examples] = field(default_factory=dict)

    def interval(self, week: int) -> Interval:
        """The interval of a week."""
        return Interval(FIRST + week * WEEK, FIRST + (week + 1) * WEEK)

    def selection(self, first: int, until: int) -> Selection:
        """The groups to learn from in weeks `first` to `until` - 1."""
        index = self._index(first, until)
        teaching = index.filter(~pc.field(c.MEMORY) & (pc.field(c.FOUND) > 0))
        return Selection(teaching.select([c.GROUP, c.INTERVAL]), 0)

    def learn(self, first: int, until: int) -> Examples:
        """The examples of weeks `first` to `until` - 1."""
        for week in range(first, until):
            if week not in self._read:
                chosen = self.selection(week, week + 1)
                self._read[week] = groups.load(self.run, chosen, self.catalogue)
        return joined([self._read[week] for week in range(first, until)])

    def drawn(self, sample: Selection) -> Examples:
        """The examples of a sample of weeks that were read."""
        wanted = sample.index[c.GROUP].combine_chunks()
        parts = [
            self._read[week].of(np.asarray(pc.is_in(self._read[week].ids, value_set=wanted)))
            for week in sorted(self._read)
        ]
        return joined([part for part in parts if part.groups])

    def held(self, first: int, until: int, *, memory: bool) -> Held:
        """The groups of some weeks, of the memory holdout or all others."""
        index = self._index(first, until)
        marked = pc.field(c.MEMORY) if memory else ~pc.field(c.MEMORY)
        index = index.filter(marked & (pc.field(c.RELEVANT) > 0)).sort_by(c.GROUP)
        wanted = dict.fromkeys([c.GROUP, c.ITEM, c.LABEL, *self.catalogue.features, "pair_orders"])
        rows = self.run.lake.read(
            f"groups/{self.run.shop.surface.name}",
            [self.interval(week) for week in range(first, until)],
            list(wanted),
            pc.field(c.GROUP).isin(index[c.GROUP].combine_chunks()),
        )
        own = np.nan_to_num(np.asarray(rows["pair_orders"], dtype=np.float64))
        return Held(
            rows.select(self.catalogue.features).combine_chunks(),
            holdouts.ranked(index, rows),
            own,
        )

    def _index(self, first: int, until: int) -> pa.Table:
        keys = [self.interval(week).key for week in range(first, until)]
        return self._whole_index.filter(pc.field(c.INTERVAL).isin(keys))

    @cached_property
    def _whole_index(self) -> pa.Table:
        """Read once: a contender's seconds are those of learning."""
        found = self.run.lake.read(f"group_index/{self.run.shop.surface.name}")
        return found.sort_by([(c.INTERVAL, "ascending"), (c.GROUP, "ascending")])

    def ndcg(self, model: str | None, held: Held) -> np.ndarray:
        """g values of end-to-end NDCG@10; without a model, of the shopper's own orders."""
        scores = held.own
        if model is not None:
            scores = boosting.scores(model, held.rows, self.run.settings.threads)
        return metrics.per_group(held.ranked, scores).ndcg_at_10


@dataclass
class State:
    """A contender between two weeks."""

    model: str | None = None
    history: History = field(default_factory=History)
    said: str = ""
    behind: float | None = None
    """See `drift.behind`; of the week that was learned last."""


Learn = Callable[[Weeks, State, int], str | None]
"""Learns week `w` - 1, and all before it if it likes, so that week w can be served."""


def _first(weeks: Weeks, week: int) -> str:
    return strategies.fresh(Material.of(weeks.run, weeks.learn(0, week))).text


def _continuing(name: str, **learning: Any) -> Learn:
    def learn(weeks: Weeks, state: State, week: int) -> str:
        material = _material(weeks, state, week)
        changed = material.learning.model_copy(update=learning)
        return STRATEGIES[name](replace(material, learning=changed)).text

    return learn


def _material(weeks: Weeks, state: State, week: int) -> Material:
    learning, new = weeks.run.shop.learning, weeks.learn(week - 1, week)
    oldest = max(0, week - learning.window_intervals)

    def past() -> Examples:
        sample = replay.sample(
            weeks.selection(oldest, week - 1), round(learning.replay_ratio * new.groups),
            weeks.interval(week).start, learning.replay_half_life * timedelta(days=7),
            learning.seed,
        )  # fmt: skip
        return weeks.drawn(sample)

    return Material.of(
        weeks.run, new, state.model, window=lambda: weeks.learn(oldest, week), past=past
    )


def _naive(weeks: Weeks, state: State, week: int) -> str:
    """Five trees a week at the rate of a first model, without more thought."""
    material = _material(weeks, state, week)
    return local.train(Job(material.new, material.params(material.new), 5, state.model))


def _policy(weeks: Weeks, state: State, week: int) -> str:
    learning, gate = weeks.run.shop.learning, weeks.run.shop.gate
    parent = state.model or ""
    material = _material(weeks, state, week)
    scores = boosting.scores_from_leaves(parent, material.leaves)
    health = drift.measure(material.new, scores)
    every = weeks.selection(0, week).groups
    window = weeks.selection(max(0, week - learning.window_intervals), week).groups
    history = state.history
    state.behind = drift.behind(health, history.healths)
    healths = (*history.healths, health)
    policy_state = PolicyState(
        learning, gate, None, trees.count(parent), len(parent) / 1e6, 0.0, 1, state.behind,
        drift.runs_since_alarm(healths, learning.drift_alarm, policy.reach(learning)),
        material.new.groups, window, every, history,
    )  # fmt: skip
    choice = policy.choose(policy_state)
    name, _ = preselection.best(choice.names, material)
    model = STRATEGIES[name](material)
    state.history = history.after([name], health, policy.cost(choice.names, policy_state))
    state.said = name
    return model.text


CONTENDERS: Final[dict[str, Learn]] = {
    BASELINE: lambda weeks, state, week: None,
    "frozen": lambda weeks, state, week: state.model,
    "naive boost": _naive,
    "refit": _continuing("refit_boost", refit_rounds=0),
    "refit_boost": _continuing("refit_boost"),
    "replay_boost": _continuing("replay_boost"),
    "policy": _policy,
    "8-week window": lambda weeks, state, week: (
        strategies.fresh(
            Material.of(weeks.run, weeks.learn(max(0, week - WINDOW_WEEKS), week))
        ).text
    ),
    "full retrain": lambda weeks, state, week: _first(weeks, week),
}


@dataclass(frozen=True)
class Week:
    """What one contender did in one week."""

    week: int
    ndcg: list[float]
    """A value a group."""
    memory: float
    """Mean NDCG@10 on the memory holdout of the weeks before the first model."""
    seconds: float
    cpu_s: float
    trees: int
    score_ms: float
    said: str
    behind: float | None = None


def play(weeks: Weeks, name: str, first: int, last: int, folder: Path) -> Iterator[Week]:
    """Let a contender serve each week with what it learned before, then learn it.

    What is on record in `folder` is not done again, also after a kill. The first model, learned
    from all weeks before `first`, serves that one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opening = folder.parent / "first.txt"
    if not opening.exists():
        _whole(opening, _first(weeks, first))
    state = State()
    for week in range(first, last + 1):
        record = folder / f"{week}.json"
        if record.exists():
            stored = json.loads(record.read_text(encoding="utf-8"))
            state = _state(stored["state"], folder / f"{week}.txt")
            yield Week(**stored["week"])
            continue
        began, cpu = time.perf_counter(), time.process_time()
        if week == first:
            state.model = None if name == BASELINE else opening.read_text(encoding="utf-8")
        else:
            weeks.learn(0, week)
            began, cpu = time.perf_counter(), time.process_time()
            state.model = CONTENDERS[name](weeks, state, week)
        took, used = time.perf_counter() - began, time.process_time() - cpu
        yield _record(weeks, state, week, first, took, used, folder)


def p99_ms(text: str, rows: pa.Table) -> float:
    """The 99th percentile of the milliseconds of one thread that scoring 500 candidates takes.

    The processor's time in that thread, so that other work on the machine does not count.
    """
    model = booster.lightgbm().Booster(model_str=text)
    some = rows.take(np.resize(np.arange(rows.num_rows), booster.CANDIDATES)).combine_chunks()
    seconds = []
    for _ in range(51):
        started = time.thread_time()
        model.predict(some, num_threads=1)
        seconds.append(time.thread_time() - started)
    # The first call also prepares the prediction.
    return float(np.quantile(seconds[1:], 0.99, method="lower")) * 1000


def _record(
    weeks: Weeks, state: State, week: int, first: int, took: float, used: float, folder: Path
) -> Week:
    found = Week(
        week,
        [
            round(value, 6)
            for value in weeks.ndcg(state.model, _held(weeks, week, week + 1, memory=False))
        ],
        float(weeks.ndcg(state.model, _held(weeks, 0, first, memory=True)).mean()),
        took,
        used,
        trees.count(state.model) if state.model else 0,
        p99_ms(state.model, weeks.learn(week - 1, week).features) if state.model else 0.0,
        state.said,
        state.behind,
    )
    _whole(folder / f"{week}.txt", state.model or "")
    plain = {
        "week": found.__dict__,
        "state": {
            "healths": [each.as_dict() for each in state.history.healths],
            "spent": [each.__dict__ for each in state.history.costs],
            "since_compaction": state.history.runs_since_new_model,
        },
    }
    _whole(folder / f"{week}.json", json.dumps(plain))
    return found


def _state(stored: dict[str, Any], text: Path) -> State:
    history = History(
        tuple(Health(**each) for each in stored["healths"]),
        tuple(TrainingCost(**each) for each in stored["spent"]),
        stored["since_compaction"],
    )
    return State(text.read_text(encoding="utf-8") or None, history)


_HELD: dict[tuple[str, int, int], Held] = {}


def _held(weeks: Weeks, first: int, until: int, *, memory: bool) -> Held:
    """The memory holdout is read once; the weeks come by one after the other."""
    if not memory:
        return weeks.held(first, until, memory=False)
    key = (str(weeks.run.lake.local_root), first, until)
    if key not in _HELD:
        _HELD[key] = weeks.held(first, until, memory=True)
    return _HELD[key]


def _whole(path: Path, content: str) -> None:
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(content, encoding="utf-8")
    part.replace(path)
