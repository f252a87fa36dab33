"""The comparison itself: every contender on every held-out group, then the paired gains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.evaluate import bootstrap, metrics
from pipelines.evaluate.gate import Comparison, Trial
from pipelines.evaluate.holdouts import Holdout, Split
from pipelines.shared import columns as c
from pipelines.shared.errors import FeatureMismatch, PermanentError
from pipelines.shared.intervals import Interval
from pipelines.shared.models import booster

BASELINE = "baseline"
BASELINE_FEATURE = "pair_orders"
"""The baseline ranks by the shopper's own orders of the item."""
CHAMPION = "champion"

Figures = dict[str, dict[Split, dict[str, float]]]
"""Contender → split → metric → mean over groups."""


class HoldoutLeak(PermanentError):
    """A model was about to score groups that it may have learned from (law 5)."""


@dataclass(frozen=True)
class Contender:
    """A model on trial, or what it is compared with."""

    name: str
    """`champion`, or the challenger's strategy."""
    model: Path
    trained_through: datetime
    trees: int
    forced: bool = False
    """See `Challenger.forced`."""

    @property
    def megabytes(self) -> float:
        """Size of the model text."""
        return self.model.stat().st_size / 1e6


@dataclass(frozen=True)
class Contest:
    """What is compared with what, on which groups."""

    interval: Interval
    champion: Contender | None
    """None before the first model: the baseline takes its place."""
    challengers: tuple[Contender, ...]
    holdouts: tuple[Holdout, ...]
    catalogue: int
    """How many items the shop knows."""
    confidence: float
    threads: int


@dataclass(frozen=True)
class Result:
    """What a contest showed."""

    figures: Figures
    trials: tuple[Trial, ...]
    scores: pa.Table | None
    """Group × split × model: NDCG@10, MRR, recall@10; None without groups."""


def hold(contest: Contest) -> Result:
    """Score every contender and the baseline on every held-out group.

    Raises:
        HoldoutLeak: a contender may have learned from a group.
        FeatureMismatch: a model wants features that the groups lack.
    """
    contenders = [*([contest.champion] if contest.champion else []), *contest.challengers]
    require_unseen(contenders, contest.holdouts)
    found: dict[tuple[str, Split], metrics.GroupScores] = {}
    figures: Figures = {}
    for holdout in contest.holdouts:
        scored = {BASELINE: baseline(holdout)} | {
            each.name: booster.score(each.model, holdout.rows, contest.threads)
            for each in (contenders if holdout.groups else [])
        }
        for name, values in scored.items():
            groups = metrics.per_group(holdout.ranked, values)
            found[name, holdout.split] = groups
            figures.setdefault(name, {})[holdout.split] = {
                metric: metrics.mean(value) for metric, value in groups.values().items()
            } | {"coverage_at_10": metrics.coverage(groups, contest.catalogue)}
    return Result(figures, _trials(contest, found), _table(contest.holdouts, found))


def require_unseen(contenders: list[Contender], holdouts: tuple[Holdout, ...]) -> None:
    """Refuse a contender that may have learned from a group of the forward holdout (law 5).

    Memory groups are kept out of training by the hash of their id; they must be marked so, and
    the two holdouts must not share a group.

    Raises:
        HoldoutLeak: names the model, its time and the group's.
    """
    by_split = {holdout.split: holdout for holdout in holdouts}
    forward, memory = by_split.get("forward"), by_split.get("memory")
    for each in contenders:
        if forward and forward.earliest and each.trained_through > forward.earliest:
            raise HoldoutLeak(
                f"{each.name} ({each.model.name}) has learned through {each.trained_through}, and "
                f"a group of the forward holdout matured at {forward.earliest}; compare it on "
                "later groups"
            )
    if memory and memory.groups and not pc.all(memory.index[c.MEMORY]).as_py():
        raise HoldoutLeak("a group of the memory holdout is not marked as such; rebuild features")
    if forward and memory and forward.groups and memory.groups:
        shared = pc.is_in(forward.index[c.GROUP], value_set=memory.index[c.GROUP].combine_chunks())
        if pc.any(shared).as_py():
            raise HoldoutLeak("a group is in both holdouts; rebuild the interval's features")


def baseline(holdout: Holdout) -> npt.NDArray[np.float64]:
    """What ranks without a model: how often the shopper bought the item.

    Returns:
        n scores; nothing bought is 0.

    Raises:
        FeatureMismatch: the groups carry no such feature.
    """
    if holdout.groups == 0:
        return np.empty(0)
    if BASELINE_FEATURE not in holdout.rows.column_names:
        raise FeatureMismatch(
            f"the groups lack the feature {BASELINE_FEATURE}, which is the baseline that a first "
            "model must beat; rebuild the interval's features"
        )
    orders = np.asarray(holdout.rows[BASELINE_FEATURE], dtype=np.float64)
    return np.nan_to_num(orders, nan=0.0)


def _trials(
    contest: Contest, found: dict[tuple[str, Split], metrics.GroupScores]
) -> tuple[Trial, ...]:
    against = contest.champion.name if contest.champion else BASELINE
    trials = []
    for each in contest.challengers:
        trial = Trial(each.name, each.trees, each.megabytes, forced=each.forced)
        for holdout in contest.holdouts:
            if holdout.groups == 0:
                continue
            if not trial.score_ms:
                trial = replace(trial, score_ms=_score_ms(each.model, holdout.rows))
            own, other = found[each.name, holdout.split], found[against, holdout.split]
            # The memory rule is asked of one challenger only, so its level stays as declared.
            rivals = len(contest.challengers) if holdout.split == "forward" else 1
            comparison = _compare(contest, holdout, own, other, rivals)
            trial = (
                replace(trial, forward=comparison)
                if holdout.split == "forward"
                else replace(trial, memory=comparison)
            )
        trials.append(trial)
    return tuple(trials)


def _score_ms(model: Path, rows: pa.Table) -> float:
    wanted = list(booster.card(model).features)
    return booster.score_ms(model.read_text(encoding="utf-8"), rows.select(wanted))


def _compare(
    contest: Contest,
    holdout: Holdout,
    own: metrics.GroupScores,
    other: metrics.GroupScores,
    rivals: int,
) -> Comparison:
    shoppers = holdout.index[c.SHOPPER]
    numbers = np.asarray(pc.index_in(shoppers, value_set=pc.unique(shoppers)), dtype=np.int64)
    gain = bootstrap.paired_gain(
        own.ndcg_at_10 - other.ndcg_at_10,
        numbers,
        bootstrap.widened(contest.confidence, rivals),
        bootstrap.seed(contest.interval.key, holdout.split),
    )
    return Comparison(holdout.groups, len(np.unique(numbers)), metrics.mean(own.ndcg_at_10), gain)


def _table(
    holdouts: tuple[Holdout, ...], found: dict[tuple[str, Split], metrics.GroupScores]
) -> pa.Table | None:
    parts = []
    for (name, split), groups in sorted(found.items(), key=lambda entry: entry[0]):
        index = next(holdout.index for holdout in holdouts if holdout.split == split)
        columns: dict[str, Any] = {
            c.GROUP: index[c.GROUP],
            c.SHOPPER: index[c.SHOPPER],
            "split": pa.repeat(split, index.num_rows),
            "model": pa.repeat(name, index.num_rows),
        }
        measured = {metric: pa.array(each) for metric, each in groups.values().items()}
        parts.append(pa.table({**columns, **measured}))
    # A holdout without groups does not know the type of a shopper's id.
    filled = [part for part in parts if part.num_rows]
    return pa.concat_tables(filled).combine_chunks() if filled else None
