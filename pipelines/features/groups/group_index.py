"""The group index: what a basket or list held, how much the candidates cover, the ideal DCG."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.features.candidates import SOURCES
from pipelines.shared import columns, hashing
from pipelines.shared.ranking import dcg

Ints = npt.NDArray[np.int64]


def ideal_dcg(places: Ints, labels: Ints, groups: int) -> npt.NDArray[np.float64]:
    """The DCG@10 of each group's relevant items in the best order.

    Args:
        places: a row a relevant item, the number of its group in `[0, groups)`.
        labels: its label.
        groups: number of groups.
    """
    order = np.lexsort((-labels, places))
    places, labels = places[order], labels[order]
    counts = np.bincount(places, minlength=groups)
    rank = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    return dcg(places, rank, labels, groups)


def index(
    groups: pa.Table, labels: pa.Table, rows: pa.Table, schema: pa.Schema, memory_share: float
) -> pa.Table:
    """The index of some groups.

    Args:
        groups: group_id, shopper_id, group_time, mature_at; sorted by group_id.
        labels: group_id, label; a row an item that the basket or list held.
        rows: group_id, label; a row a candidate.
        schema: see `Layout.index`.
        memory_share: share of groups that no model ever learns from.
    """
    ids = groups[columns.GROUP]
    size = groups.num_rows
    held, grades = _places(labels, ids), _numbers(labels[columns.LABEL])
    relevant = grades > 0
    candidates, hit = _places(rows, ids), _numbers(rows[columns.LABEL]) > 0
    added = {
        columns.MEMORY: hashing.draw("memory", ids) < memory_share if size else np.empty(0, bool),
        columns.RELEVANT: np.bincount(held[relevant], minlength=size),
        columns.FOUND: np.bincount(candidates[hit], minlength=size),
        columns.CANDIDATES: np.bincount(candidates, minlength=size),
        columns.IDEAL_DCG: ideal_dcg(held[relevant], grades[relevant], size),
    }
    arrays = [
        pc.cast(pa.array(added[field.name]), field.type)
        if field.name in added
        else groups[field.name]
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def recall(rows: pa.Table, groups: pa.Table) -> dict[str, float | None]:
    """Share of a group's relevant items among its candidates, averaged over groups that have any.

    Args:
        rows: candidates with `label` and `from_<source>`.
        groups: the index.

    Returns:
        `all` and each source → recall, rounded to six digits; None without such a group.
    """
    wanted = _numbers(groups[columns.RELEVANT])
    some = wanted > 0
    relevant = rows.filter(pc.greater(rows[columns.LABEL], pa.scalar(0, pa.int8())))
    places = _places(relevant, groups[columns.GROUP])
    hits = {"all": np.ones(relevant.num_rows, bool)} | {
        name: _numbers(relevant[f"from_{name}"]) > 0
        for name in SOURCES
        if f"from_{name}" in relevant.column_names
    }
    if not some.any():
        return dict.fromkeys(hits)
    return {
        name: round(
            float((np.bincount(places[hit], minlength=len(wanted))[some] / wanted[some]).mean()), 6
        )
        for name, hit in hits.items()
    }


def _places(rows: pa.Table, ids: Any) -> Ints:
    return _numbers(pc.index_in(rows[columns.GROUP], value_set=ids))


def _numbers(column: Any) -> Ints:
    return np.asarray(pc.cast(column, pa.int64(), safe=False)).astype(np.int64)
