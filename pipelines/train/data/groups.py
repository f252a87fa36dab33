"""The groups to learn from: selected by maturity, read partition by partition, thinned.

Memory grows with the range asked for: one partition at a time is held whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared import columns as c
from pipelines.shared import hashing
from pipelines.shared.errors import CorruptPartition, FeatureMismatch, PermanentError
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run
from pipelines.train.data import examples, weights
from pipelines.train.data.examples import MAX_GRADE, Examples, Ints

_POSITION = "shown_position"
_TIME = pa.timestamp("us", tz="UTC")


class UnsoundGroups(PermanentError):
    """Rows to learn from hold a label or value that no model should learn."""


@dataclass(frozen=True)
class Catalogue:
    """The features of the groups, as the features stage recorded them."""

    features: tuple[str, ...]
    categorical: tuple[str, ...]
    """Those of them that hold integer codes of the stored vocabulary."""

    @classmethod
    def of(cls, manifest: Manifest) -> Catalogue:
        """The catalogue of one step."""
        return cls(tuple(manifest.details["features"]), tuple(manifest.details["categorical"]))


@dataclass(frozen=True)
class Selection:
    """Groups to learn from, before their rows are read."""

    index: pa.Table
    """group_id, interval_start; sorted by both, the partition first."""
    without_relevant: int
    """Mature groups left out, because no candidate was relevant."""

    @property
    def groups(self) -> int:
        """How many groups."""
        return int(self.index.num_rows)


def overlapping(
    run: Run, steps: list[Manifest], since: datetime | None, until: datetime
) -> list[Manifest]:
    """The steps whose partition can hold groups that matured in `[since, until)`."""
    window = timedelta(days=run.shop.surface.attribution_days)
    return [
        step
        for step in steps
        if step.interval.start < until and (since is None or step.interval.end + window > since)
    ]


def select(run: Run, steps: list[Manifest], since: datetime | None, until: datetime) -> Selection:
    """Groups that matured in `[since, until)`, never those of the memory holdout.

    Raises:
        CorruptPartition: a partition lacks groups that the ledger knows, or a group is in two.
    """
    wanted = overlapping(run, steps, since, until)
    names = [c.GROUP, c.MATURE_AT, c.MEMORY, c.FOUND, c.INTERVAL]
    if not wanted:
        return Selection(pa.table({name: pa.array([], pa.string()) for name in _INDEX}), 0)
    index = run.lake.read(
        f"group_index/{run.shop.surface.name}", [step.interval for step in wanted], names
    )
    _require_complete(run, index, wanted)
    mature = pc.field(c.MATURE_AT) < pa.scalar(until, _TIME)
    if since is not None:
        mature = mature & (pc.field(c.MATURE_AT) >= pa.scalar(since, _TIME))
    fresh = index.filter(mature & ~pc.field(c.MEMORY))
    teaching = fresh.filter(pc.field(c.FOUND) > 0).select(_INDEX)
    if len(pc.unique(teaching[c.GROUP])) < teaching.num_rows:
        raise CorruptPartition(
            f"a group is in two partitions of group_index/{run.shop.surface.name} between "
            f"{wanted[0].interval.key} and {wanted[-1].interval.key}; "
            f"{_rebuild(run, wanted[0].interval, wanted[-1].interval)}"
        )
    ordered = teaching.sort_by([(name, "ascending") for name in reversed(_INDEX)])
    return Selection(ordered, fresh.num_rows - teaching.num_rows)


_INDEX = [c.GROUP, c.INTERVAL]


def _rebuild(run: Run, first: Interval, last: Interval) -> str:
    return (
        f"`python -m pipelines features rebuild --shop {run.shop.shop} --start "
        f"{first.start:%FT%TZ} --end {last.end:%FT%TZ}` forms the groups of these intervals again"
    )


def _require_complete(run: Run, index: pa.Table, steps: list[Manifest]) -> None:
    counted = index.group_by(c.INTERVAL).aggregate([(c.GROUP, "count")])
    groups = dict(
        zip(counted[c.INTERVAL].to_pylist(), counted[f"{c.GROUP}_count"].to_pylist(), strict=True)
    )
    for step in steps:
        if (have := groups.get(step.interval.key, 0)) != step.counts["groups"]:
            raise CorruptPartition(
                f"the group index of {step.interval} holds {have} groups, but the ledger knows of "
                f"{step.counts['groups']}; {_rebuild(run, step.interval, step.interval)}"
            )


def load(run: Run, selection: Selection, catalogue: Catalogue) -> Examples:
    """Read the rows of the selected groups: all relevant candidates, and some negatives each.

    Which negatives are kept depends on the seed and the ids alone. Groups whose kept candidates
    all have one grade teach no order and are left out.

    Raises:
        FeatureMismatch: the lake lacks a feature of the catalogue.
        UnsoundGroups: a label is missing or out of range, or a feature is infinite.
        CorruptPartition: a file of the lake is damaged.
    """
    parts = list(_partitions(run, selection, catalogue))
    return examples.joined(parts) if parts else examples.empty(_schema(catalogue))


def _schema(catalogue: Catalogue) -> pa.Schema:
    codes = set(catalogue.categorical)
    return pa.schema(
        {name: pa.int32() if name in codes else pa.float32() for name in catalogue.features}
    )


def _partitions(run: Run, selection: Selection, catalogue: Catalogue) -> Iterator[Examples]:
    if selection.groups == 0:
        return
    table = f"groups/{run.shop.surface.name}"
    present = set(run.lake.columns(table))
    if missing := [name for name in catalogue.features if name not in present]:
        raise FeatureMismatch(
            f"{table} lacks features that the ledger lists: {', '.join(missing)}; "
            f"{_rebuild(run, run.steps[0], run.steps[-1])}"
        )
    logged = [_POSITION] if _POSITION in present else []
    wanted = dict.fromkeys([c.GROUP, c.ITEM, c.LABEL, *logged, *catalogue.features])
    for key in map(str, pc.unique(selection.index[c.INTERVAL]).to_pylist()):
        ids = selection.index.filter(pc.field(c.INTERVAL) == key)[c.GROUP].combine_chunks()
        rows = run.lake.read(table, [key], list(wanted))
        rows = rows.filter(pc.is_in(rows[c.GROUP], value_set=ids))
        _require_labels(rows, key)
        kept = thin(rows, run.shop.learning.negatives_per_group, run.shop.learning.seed)
        part = _examples(kept, catalogue, run.shop.learning.position_power)
        _require_finite(part.features, key)
        if part.groups:
            yield part


def thin(rows: pa.Table, negatives: int, seed: int) -> pa.Table:
    """Keep every relevant candidate and, of each group, the `negatives` with the lowest draw.

    The kept rows are sorted by group and item.
    """
    ordered = rows.sort_by([(c.GROUP, "ascending"), (c.ITEM, "ascending")])
    negative = np.flatnonzero(ordered[c.LABEL].to_numpy() == 0)
    some = ordered.select([c.GROUP, c.ITEM]).take(negative)
    draws = hashing.draw(f"negatives/{seed}", some[c.GROUP], some[c.ITEM])
    group = np.repeat(np.arange(len(sizes := _sizes(some[c.GROUP]))), sizes)
    by_draw = np.lexsort((draws, group))
    rank = np.empty(len(negative), np.int64)
    rank[by_draw] = np.arange(len(negative)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    keep = np.ones(ordered.num_rows, np.bool_)
    keep[negative[rank >= negatives]] = False
    return ordered.filter(pa.array(keep))


def _sizes(ids: Any) -> Ints:
    """Lengths of the runs of equal values in a sorted column."""
    if len(ids) == 0:
        return np.empty(0, np.int64)
    change = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
    starts = np.flatnonzero(np.asarray(change)) + 1
    return np.diff(np.concatenate([[0], starts, [len(ids)]])).astype(np.int64)


def _examples(rows: pa.Table, catalogue: Catalogue, power: float) -> Examples:
    sizes = _sizes(rows[c.GROUP])
    starts = np.cumsum(sizes) - sizes
    labels = rows[c.LABEL].to_numpy().astype(np.float32)
    ids = rows[c.GROUP].combine_chunks().take(pa.array(starts))
    weight = np.ones(len(labels), np.float32)
    if _POSITION in rows.column_names:
        places = rows[_POSITION].cast(pa.float64()).to_numpy()
        weight = weights.exposure(places, labels, sizes, power)
    whole = Examples(_features(rows, catalogue), labels, sizes, ids, weight)
    if not len(sizes):
        return whole
    graded = np.maximum.reduceat(labels, starts) > np.minimum.reduceat(labels, starts)
    return whole if graded.all() else whole.of(graded)


def _features(rows: pa.Table, catalogue: Catalogue) -> pa.Table:
    """The feature columns; an unknown category is a missing value, as the trees will score it."""
    features = rows.select(catalogue.features).cast(_schema(catalogue))
    for name in catalogue.categorical:
        codes = features[name]
        known = pc.if_else(
            pc.greater_equal(codes, pa.scalar(0, pa.int32())), codes, pa.scalar(None, pa.int32())
        )
        features = features.set_column(catalogue.features.index(name), name, known)
    return features.combine_chunks()


def _require_labels(rows: pa.Table, key: str) -> None:
    labels = rows[c.LABEL]
    low, high = pc.min(labels).as_py(), pc.max(labels).as_py()
    if labels.null_count or (rows.num_rows and not 0 <= low <= high <= MAX_GRADE):
        raise UnsoundGroups(
            f"labels of {key}: {labels.null_count} are missing, the others lie in {low} … {high}; "
            f"a label is a grade of 0 … {MAX_GRADE}: mend the events' grades in the declaration "
            "and run `python -m pipelines features rebuild` for this interval"
        )


def _require_finite(features: pa.Table, key: str) -> None:
    """A missing value is learnable, an infinite one is a fault."""
    for field in features.schema:
        if pa.types.is_floating(field.type) and pc.any(pc.is_inf(features[field.name])).as_py():
            raise UnsoundGroups(
                f"feature {field.name} of {key} is infinite in some rows; a ratio without a "
                "denominator is null: mend the feature and run `python -m pipelines features "
                "rebuild` for this interval"
            )
