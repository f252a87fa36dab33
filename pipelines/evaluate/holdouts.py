"""The groups on which models are compared: the forward holdout and the memory holdout."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.evaluate.metrics import Ranked
from pipelines.shared import columns as c
from pipelines.shared.intervals import Interval
from pipelines.shared.ranking import numbered
from pipelines.shared.run import Run

Split = Literal["forward", "memory"]
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Holdout:
    """Groups that no compared model has learned from, with every candidate: none is sampled."""

    split: Split
    index: pa.Table
    """g groups, sorted by group; columns of `group_index/<surface>`."""
    rows: pa.Table
    """n candidates of these groups, with their features."""
    ranked: Ranked

    @property
    def groups(self) -> int:
        """How many groups."""
        return int(self.index.num_rows)

    @property
    def earliest(self) -> datetime | None:
        """The time at which the first of the groups matured."""
        earliest: datetime | None = pc.min(self.index[c.MATURE_AT]).as_py()
        return earliest

    @property
    def candidate_recall(self) -> float:
        """Share of a group's relevant items among its candidates, averaged; NaN without groups."""
        if self.groups == 0:
            return float("nan")
        recall = self.index[c.FOUND].to_numpy() / self.index[c.RELEVANT].to_numpy()
        return float(recall.mean())


def forward(run: Run, cut: datetime, features: set[str]) -> Holdout:
    """Groups of the run's own steps that matured in `[cut, end)`, less the memory holdout.

    Steps that were written without one of the features are left out.

    Raises:
        CorruptPartition: a file of the lake is damaged.
    """
    keep = (
        (pc.field(c.MATURE_AT) >= pa.scalar(cut, _TIME))
        & (pc.field(c.MATURE_AT) < pa.scalar(run.interval.end, _TIME))
        & ~pc.field(c.MEMORY)
    )
    # A group lies where it was formed; its label may have matured some steps later.
    window = timedelta(days=run.shop.surface.attribution_days)
    reach = -(-window // run.shop.grid.step) * run.shop.grid.step
    steps = run.shop.grid.steps(Interval(run.steps[0].start - reach, run.interval.end))
    return _load(run, "forward", tuple(steps), keep, features)


def memory(run: Run, features: set[str]) -> Holdout:
    """The memory holdout of the last `learning.memory_intervals` steps.

    Raises:
        CorruptPartition: a file of the lake is damaged.
    """
    keep = pc.field(c.MEMORY) & (pc.field(c.MATURE_AT) < pa.scalar(run.interval.end, _TIME))
    return _load(run, "memory", memory_steps(run), keep, features)


def memory_steps(run: Run) -> tuple[Interval, ...]:
    """The steps over which the memory holdout reaches, oldest first."""
    step: timedelta = run.shop.grid.step
    start = run.interval.end - run.shop.learning.memory_intervals * step
    return tuple(run.shop.grid.steps(Interval(start, run.interval.end)))


def _load(
    run: Run, split: Split, steps: tuple[Interval, ...], keep: pc.Expression, features: set[str]
) -> Holdout:
    surface = run.shop.surface.name
    # A column that a step was written without would be read as if its values were unknown.
    lacking = {
        manifest.interval
        for manifest in run.ledger.manifests("features", surface)
        if not features <= set(manifest.details["features"])
    }
    steps = tuple(step for step in steps if step not in lacking)
    if not steps or not run.lake.exists(f"group_index/{surface}"):
        return _empty(split)
    index = run.lake.read(f"group_index/{surface}", steps)
    # A group in which nothing was relevant ranks no model above another.
    index = index.filter(keep & (pc.field(c.RELEVANT) > 0)).sort_by(c.GROUP)
    if index.num_rows == 0:
        return _empty(split)
    table = f"groups/{surface}"
    present = [name for name in run.lake.columns(table) if name in features]
    wanted = list(dict.fromkeys([c.GROUP, c.ITEM, c.LABEL, *present]))
    of_these = pc.field(c.GROUP).isin(index[c.GROUP].combine_chunks())
    rows = run.lake.read(table, steps, columns=wanted, where=of_these)
    return Holdout(split, index, rows, ranked(index, rows))


def ranked(index: pa.Table, rows: pa.Table) -> Ranked:
    """Candidates (group, item and label) of sorted groups, as metrics take them."""
    position = pc.index_in(rows[c.GROUP], value_set=index[c.GROUP].combine_chunks())
    return Ranked(
        group=position.to_numpy().astype(np.int64),
        item=numbered(rows[c.ITEM]),
        label=rows[c.LABEL].to_numpy().astype(np.int64),
        ideal=index[c.IDEAL_DCG].to_numpy().astype(np.float64),
        relevant=index[c.RELEVANT].to_numpy().astype(np.int64),
    )


def _empty(split: Split) -> Holdout:
    index = pa.table(
        {
            c.GROUP: pa.array([], pa.string()),
            c.SHOPPER: pa.array([], pa.string()),
            c.MATURE_AT: pa.array([], _TIME),
        }
    )
    rows = pa.table({c.GROUP: pa.array([], pa.string()), c.ITEM: pa.array([], pa.string())})
    none = np.empty(0, dtype=np.int64)
    return Holdout(split, index, rows, Ranked(none, none, none, none.astype(np.float64), none))
