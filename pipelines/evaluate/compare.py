"""The comparison: every contender scores every held-out group, then the gains are paired."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.evaluate import bootstrap, holdouts, metrics
from pipelines.evaluate.bootstrap import UNKNOWN, Gain
from pipelines.evaluate.holdouts import Holdout, Split
from pipelines.shared import columns as c
from pipelines.shared.errors import FeatureMismatch, PermanentError
from pipelines.shared.models import booster
from pipelines.shared.models.challengers import Trained
from pipelines.shared.run import Run

BASELINE = "baseline"
"""Ranks by the shopper's own orders of the item, the feature `columns.BASELINE`."""
CHAMPION = "champion"
ITEMS = "state/items"

Figures = dict[str, dict[Split, dict[str, float]]]
"""Contender → split → metric → mean over groups."""
Measured = dict[tuple[str, Split], metrics.GroupScores]


class HoldoutLeak(PermanentError):
    """A model was about to score groups that it may have learned from (law 5)."""


@dataclass(frozen=True)
class PairedGain:
    """A challenger against what it would replace, on one holdout."""

    groups: int = 0
    shoppers: int = 0
    ndcg_at_10: float = math.nan
    """The challenger's mean."""
    gain: Gain = UNKNOWN


@dataclass(frozen=True)
class Contender:
    """The champion or a challenger. What follows `forced` is measured, of challengers only."""

    name: str
    """`champion`, or the challenger's strategy."""
    model: Path
    trained_through: datetime
    trees: int
    forced: bool = False
    """See `Challenger.forced`: it need only be no worse than the champion."""
    megabytes: float = math.nan
    """Size of the model text."""
    score_ms: float = 0.0
    """Milliseconds that scoring 500 candidates takes on one thread (`booster.score_ms`)."""
    forward: PairedGain = PairedGain()
    memory: PairedGain = PairedGain()


@dataclass(frozen=True)
class Comparison:
    """Who is compared on which groups, and what came out."""

    parent: int | None
    """The champion's version; None before the first model: the baseline takes its place."""
    champion: Contender | None = None
    unscorable: str | None = None
    """Why the champion cannot be compared, so that the baseline takes its place; None if it can."""
    challengers: tuple[Contender, ...] = ()
    holdouts: tuple[Holdout, ...] = ()
    figures: Figures = field(default_factory=dict)
    scores: pa.Table | None = None
    """Group × split × model: NDCG@10, MRR, recall@10; None without groups."""
    failure: str | None = None
    """Why nothing was compared; None otherwise."""

    @property
    def best(self) -> Contender | None:
        """The challenger with the highest mean NDCG@10 on the forward holdout; NaN comes last."""
        if self.failure is not None:
            return None

        def level(each: Contender) -> tuple[float, str]:
            mean = each.forward.ndcg_at_10
            return (mean if math.isfinite(mean) else -math.inf, each.name)

        return max(self.challengers, key=level, default=None)


def prepare(run: Run, trained: Trained) -> Comparison:
    """A comparison with its contenders and holdouts, before any score.

    A champion that wants features which the shop no longer has can neither be compared nor served.

    Raises:
        CorruptPartition: a file of the lake is damaged, or a model is gone.
    """
    root = run.lake.local_root
    champion, unscorable = None, None
    if trained.parent is not None:
        version = run.ledger.version(trained.parent)
        champion = Contender(
            CHAMPION, root / version.artifact, version.trained_through, version.trees
        )
        booster.read(champion.model, version.content_hash)
    challengers = tuple(
        Contender(
            each.strategy, root / each.artifact, each.trained_through, each.trees, each.forced
        )
        for each in trained.challengers
    )
    for each in trained.challengers:
        booster.read(root / each.artifact, each.content_hash)
    if champion is not None and (lost := _lost(run, champion)):
        unscorable = (
            f"the champion, version {trained.parent}, wants features that the shop no longer has: "
            f"{', '.join(lost)}"
        )
        champion = None
    features = {c.BASELINE}
    for contender in [*challengers, *([champion] if champion else [])]:
        features |= set(booster.card(contender.model).features)
    splits = (holdouts.forward(run, trained.cut, features), holdouts.memory(run, features))
    return Comparison(trained.parent, champion, unscorable, challengers, splits)


def _lost(run: Run, champion: Contender) -> list[str]:
    """The features of the champion that the run's groups were written without."""
    written = run.ledger.manifest("features", run.shop.surface.name, run.steps[-1])
    if written is None:
        return []
    return sorted(set(booster.card(champion.model).features) - set(written.details["features"]))


def compare(run: Run, prepared: Comparison) -> Comparison:
    """`prepared` with every contender's and the baseline's scores of every group, and the gains.

    Raises:
        HoldoutLeak: a contender may have learned from a group.
        FeatureMismatch: a model wants features that the groups lack.
    """
    contenders = [*([prepared.champion] if prepared.champion else []), *prepared.challengers]
    require_unseen(contenders, prepared.holdouts)
    catalogue = _catalogue(run)
    measured: Measured = {}
    figures: Figures = {}
    for holdout in prepared.holdouts:
        scored = {BASELINE: baseline(holdout)} | {
            each.name: booster.score(each.model, holdout.rows, run.settings.threads)
            for each in (contenders if holdout.groups else [])
        }
        for name, scores in scored.items():
            groups = metrics.per_group(holdout.ranked, scores)
            measured[name, holdout.split] = groups
            figures.setdefault(name, {})[holdout.split] = {
                metric: metrics.mean(values) for metric, values in groups.values().items()
            } | {"coverage_at_10": metrics.coverage(groups, catalogue)}
    challengers = tuple(_measure(run, prepared, each, measured) for each in prepared.challengers)
    table = _table(prepared.holdouts, measured)
    return replace(prepared, challengers=challengers, figures=figures, scores=table)


def require_unseen(contenders: Sequence[Contender], holdouts: tuple[Holdout, ...]) -> None:
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
        raise HoldoutLeak(
            "a group of the memory holdout is not marked as such; run `python -m pipelines "
            "features rebuild` for the interval"
        )
    if forward and memory and forward.groups and memory.groups:
        shared = pc.is_in(forward.index[c.GROUP], value_set=memory.index[c.GROUP].combine_chunks())
        if pc.any(shared).as_py():
            raise HoldoutLeak(
                "a group is in both holdouts; run `python -m pipelines features rebuild` for the "
                "interval"
            )


def baseline(holdout: Holdout) -> npt.NDArray[np.float64]:
    """n scores without a model: how often the shopper bought the item.

    Raises:
        FeatureMismatch: the groups carry no such feature.
    """
    if holdout.groups == 0:
        return np.empty(0)
    if c.BASELINE not in holdout.rows.column_names:
        raise FeatureMismatch(
            f"the groups lack the feature {c.BASELINE}, which is the baseline that a first "
            "model must beat; rebuild the interval's features"
        )
    orders = np.asarray(holdout.rows[c.BASELINE], dtype=np.float64)
    return np.nan_to_num(orders, nan=0.0)


def _catalogue(run: Run) -> int:
    """How many items the shop knew at the interval's end; 0 where that was never written."""
    if not run.lake.exists(ITEMS):
        return 0
    return int(run.lake.read(ITEMS, run.steps[-1:], [c.ITEM]).num_rows)


def _measure(run: Run, prepared: Comparison, each: Contender, measured: Measured) -> Contender:
    """A challenger with its size, its scoring time and its gain on every holdout."""
    against = prepared.champion.name if prepared.champion else BASELINE
    each = replace(each, megabytes=each.model.stat().st_size / 1e6)
    for holdout in prepared.holdouts:
        if holdout.groups == 0:
            continue
        if not each.score_ms:
            each = replace(each, score_ms=_score_ms(each.model, holdout.rows))
        own, other = measured[each.name, holdout.split], measured[against, holdout.split]
        # The memory rule is asked of one challenger only, so its level stays as declared.
        rivals = len(prepared.challengers) if holdout.split == "forward" else 1
        paired = _pair(run, holdout, own, other, rivals)
        if holdout.split == "forward":
            each = replace(each, forward=paired)
        else:
            each = replace(each, memory=paired)
    return each


def _score_ms(model: Path, rows: pa.Table) -> float:
    first = pc.sort_indices(
        rows.select([c.GROUP, c.ITEM]),
        sort_keys=[(c.GROUP, "ascending"), (c.ITEM, "ascending")],
    )[: booster.CANDIDATES]
    features = list(booster.card(model).features)
    return booster.score_ms(booster.read(model), rows.select(features).take(first))


def _pair(
    run: Run, holdout: Holdout, own: metrics.GroupScores, other: metrics.GroupScores, rivals: int
) -> PairedGain:
    shoppers = holdout.index[c.SHOPPER]
    numbers = np.asarray(pc.index_in(shoppers, value_set=pc.unique(shoppers)), dtype=np.int64)
    gain = bootstrap.paired_gain(
        own.ndcg_at_10 - other.ndcg_at_10,
        numbers,
        bootstrap.widened(run.shop.gate.confidence, rivals),
        bootstrap.seed(run.interval.key, holdout.split),
    )
    return PairedGain(holdout.groups, len(np.unique(numbers)), metrics.mean(own.ndcg_at_10), gain)


def _table(holdouts: tuple[Holdout, ...], measured: Measured) -> pa.Table | None:
    parts = []
    for (name, split), groups in sorted(measured.items(), key=lambda entry: entry[0]):
        index = next(holdout.index for holdout in holdouts if holdout.split == split)
        columns: dict[str, Any] = {
            c.GROUP: index[c.GROUP],
            c.SHOPPER: index[c.SHOPPER],
            "split": pa.repeat(split, index.num_rows),
            "model": pa.repeat(name, index.num_rows),
        }
        values = {metric: pa.array(each) for metric, each in groups.values().items()}
        parts.append(pa.table({**columns, **values}))
    # A holdout without groups does not know the type of a shopper's id.
    filled = [part for part in parts if part.num_rows]
    return pa.concat_tables(filled).combine_chunks() if filled else None


def forward_ndcg(run: Run, models: Sequence[Path]) -> list[float]:
    """The mean NDCG@10 of each model on a run's forward holdout."""
    cut = run.interval.end - timedelta(days=run.shop.learning.holdout_days)
    features = {name for model in models for name in booster.card(model).features}
    holdout = holdouts.forward(run, cut, features)
    scores = (booster.score(model, holdout.rows, run.settings.threads) for model in models)
    return [metrics.mean(metrics.per_group(holdout.ranked, each).ndcg_at_10) for each in scores]
