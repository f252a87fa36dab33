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
from pipelines.train import drift, plan, policy, preselection, strategies
from pipelines.train.data import groups, replay
from pipelines.train.data.examples import Examples, joined
from pipelines.train.data.groups import Catalogue, Selection
from pipelines.train.drift import Health
from pipelines.train.models import boosting, trees
from pipelines.train.policy import Situation, Spent
from pipelines.train.strategies import STRATEGIES, Material, Rules

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

    @property
    def rules(self) -> Rules:
        """What every contender keeps to."""
        shop = self.run.shop
        return Rules(
            self.catalogue.categorical, shop.learning, shop.gate, self.run.settings.threads
        )

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
    healths: list[Health] = field(default_factory=list)
    spent: list[Spent] = field(default_factory=list)
    since_compaction: int = 0
    said: str = ""
    behind: float | None = None
    """See `drift.behind`; of the week that was learned last."""


Learn = Callable[[Weeks, State, int], str | None]
"""Learns week `w` - 1, and all before it if it likes, so that week w can be served."""


def _first(weeks: Weeks, week: int) -> str:
    return strategies.fresh(Material(weeks.rules, weeks.learn(0, week))).text


def _continuing(name: str, **learning: Any) -> Learn:
    def learn(weeks: Weeks, state: State, week: int) -> str:
        changed = weeks.run.shop.learning.model_copy(update=learning)
        return STRATEGIES[name].grow(_material(weeks, state, week, name, changed)).text

    return learn


def _material(weeks: Weeks, state: State, week: int, name: str, learning: Any = None) -> Material:
    learns = STRATEGIES[name].learns
    rules = weeks.rules if learning is None else replace(weeks.rules, learning=learning)
    rule = rules.learning
    oldest = max(0, week - rule.window_intervals)
    new = weeks.learn(oldest if learns == "window" else week - 1, week)
    past = None
    if learns == "replay":
        sample = replay.sample(
            weeks.selection(oldest, week - 1), round(rule.replay_ratio * new.groups),
            weeks.interval(week).start, rule.replay_half_life * timedelta(days=7), rule.seed,
        )  # fmt: skip
        past = weeks.drawn(sample)
    return Material(rules, new, state.model, past)


def _naive(weeks: Weeks, state: State, week: int) -> str:
    """Five trees a week at the rate of a first model, without more thought."""
    rules = weeks.rules
    new = weeks.learn(week - 1, week)
    params = rules.parameters(new)
    return rules.trainer.grow(new, rules.categorical, params, state.model, 5, rules.say)


def _policy(weeks: Weeks, state: State, week: int) -> str:
    learning, gate = weeks.run.shop.learning, weeks.run.shop.gate
    parent = state.model or ""
    new = weeks.learn(week - 1, week)
    leaves = boosting.fallen_into(parent, new.features, weeks.run.settings.threads)
    health = drift.measure(new, boosting.scores_of(parent, leaves))
    every = weeks.selection(0, week).groups
    window = weeks.selection(max(0, week - learning.window_intervals), week).groups
    state.behind = drift.behind(health, state.healths)
    known = trees.count(parent)
    situation = Situation(
        learning, gate, None, known, len(parent) / 1e6, 0.0, 1,
        state.behind,
        drift.since_alarm([*state.healths, health], learning.drift_alarm, policy.reach(learning)),
        new.groups, window, every, state.spent,
        state.since_compaction,
    )  # fmt: skip
    chosen = policy.choose(situation)

    def material(name: str) -> Material:
        return replace(_material(weeks, state, week, name), leaves=leaves)

    made = preselection.best(chosen.names, material)
    state.healths.append(health)
    state.spent.append(policy.spent(chosen.names, situation))
    state.since_compaction = 0 if made.name in plan.ANEW else state.since_compaction + 1
    state.said = made.name
    return made.grown.text


CONTENDERS: Final[dict[str, Learn]] = {
    BASELINE: lambda weeks, state, week: None,
    "frozen": lambda weeks, state, week: state.model,
    "naive boost": _naive,
    "refit": _continuing("refit_boost", refit_rounds=0),
    "refit_boost": _continuing("refit_boost"),
    "replay_boost": _continuing("replay_boost"),
    "policy": _policy,
    "8-week window": lambda weeks, state, week: (
        strategies.fresh(Material(weeks.rules, weeks.learn(max(0, week - WINDOW_WEEKS), week))).text
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

    What is on record in `folder` is not done again, also after a kill.

    Args:
        first: the week that the first model, learned from all weeks before, serves.
        last: the last week served.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opening = folder.parent / "first.txt"
    if not opening.exists():
        _whole(opening, _first(weeks, first))
    state = State()
    for week in range(first, last + 1):
        record = folder / f"{week}.json"
        if record.exists():
            told = json.loads(record.read_text(encoding="utf-8"))
            state = _state(told["state"], folder / f"{week}.txt")
            yield Week(**told["week"])
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
        booster.score_ms(state.model, weeks.learn(week - 1, week).features) if state.model else 0.0,
        state.said,
        state.behind,
    )
    _whole(folder / f"{week}.txt", state.model or "")
    plain = {
        "week": found.__dict__,
        "state": {
            "healths": [each.as_dict() for each in state.healths],
            "spent": [each.__dict__ for each in state.spent],
            "since_compaction": state.since_compaction,
        },
    }
    _whole(folder / f"{week}.json", json.dumps(plain))
    return found


def _state(told: dict[str, Any], text: Path) -> State:
    return State(
        text.read_text(encoding="utf-8") or None,
        [Health.of(each) for each in told["healths"]],
        [Spent(**each) for each in told["spent"]],
        told["since_compaction"],
    )


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
