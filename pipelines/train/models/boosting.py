"""LightGBM models as texts: what they score, and the data that they learn from."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.shared.models import booster
from pipelines.train.data.examples import Examples

_MACHINE_LINES: Final = (
    (re.compile(r"^\[num_threads: .*\]$", re.MULTILINE), "[num_threads: 0]"),
    (re.compile(r"^\[machines: .*\]$", re.MULTILINE), "[machines: ]"),
    (re.compile(r"^\[local_listen_port: .*\]$", re.MULTILINE), "[local_listen_port: 12400]"),
)
"""The lines of a model text that depend on where it was trained, and what replaces them."""
_LEAF_VALUES: Final = re.compile(r"^leaf_value=(.*)$", re.MULTILINE)

Scores = npt.NDArray[np.float64]
Leaves = npt.NDArray[np.int32]


def dataset(examples: Examples, params: dict[str, Any], known: Scores | None = None) -> Any:
    """A LightGBM `Dataset` of examples, not binned yet; `known`: scores of the continued model."""
    return booster.lightgbm().Dataset(
        examples.features,
        examples.labels,
        group=examples.sizes,
        weight=examples.weights if (examples.weights != 1).any() else None,
        init_score=known,
        categorical_feature=list(examples.categorical),
        params=params,
    )


def opened(model: str) -> Any:
    """A booster of a model text."""
    return booster.lightgbm().Booster(model_str=model)


def text(model: Any, trees: int = -1) -> str:
    """The text of a booster or its first trees without where it was trained: threads, addresses."""
    written = str(model.model_to_string(num_iteration=trees, start_iteration=0))
    for pattern, constant in _MACHINE_LINES:
        written = pattern.sub(constant, written)
    return written


def prepend(model: Any, parent: str) -> None:
    """Put a parent's trees before a booster's own: only LightGBM's C interface has it."""
    from lightgbm.basic import _LIB, _safe_call

    # Held by a name: the handle is freed with its booster.
    first = opened(parent)
    _safe_call(_LIB.LGBM_BoosterMerge(model._handle, first._handle))


def scores(model: str, rows: pa.Table, threads: int) -> Scores:
    """n scores of a model text, for n candidates with its features in its order."""
    predicted = opened(model).predict(rows.combine_chunks(), num_threads=threads)
    return np.asarray(predicted, dtype=np.float64)


def leaves(model: str, rows: pa.Table, threads: int) -> Leaves:
    """n x t numbers of the leaves that n candidates fall into, in a model of t trees."""
    predicted = opened(model).predict(rows.combine_chunks(), pred_leaf=True, num_threads=threads)
    return np.ascontiguousarray(predicted, dtype=np.int32).reshape(rows.num_rows, -1)


def scores_from_leaves(model: str, leaves: Leaves) -> Scores:
    """n scores of a model text, by its `leaves`: the same as `scores`, without another walk."""
    total = np.zeros(len(leaves))
    for tree, line in enumerate(_LEAF_VALUES.findall(model)):
        total += np.array(line.split(), dtype=np.float64)[leaves[:, tree]]
    return total
