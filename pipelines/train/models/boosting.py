"""LightGBM as the strategies use it: bin once, continue, move leaves."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.shared.models import booster
from pipelines.train.data.examples import Examples

_OF_THE_MACHINE: Final = (
    (re.compile(r"^\[num_threads: .*\]$", re.MULTILINE), "[num_threads: 0]"),
    (re.compile(r"^\[machines: .*\]$", re.MULTILINE), "[machines: ]"),
    (re.compile(r"^\[local_listen_port: .*\]$", re.MULTILINE), "[local_listen_port: 12400]"),
)
"""What a model text says of where it was grown, and what it says here."""

_LEAF_VALUES: Final = re.compile(r"^leaf_value=(.*)$", re.MULTILINE)

Leaves = npt.NDArray[np.int32]
Say = Callable[[int, int], None]
"""Told after each round: rounds done, rounds wanted at most."""


def silent(done: int, wanted: int) -> None:
    """Say nothing."""
    del done, wanted


@dataclass(frozen=True)
class Binned:
    """Examples with their histograms' bins, and the scores that trees are added to."""

    examples: Examples
    params: dict[str, Any]
    parent: str | None
    """The model text that is continued; None for a new model."""
    data: Any
    """The constructed `Dataset`."""
    start: npt.NDArray[np.float64] | None
    """n scores of the parent."""

    @classmethod
    def of(
        cls,
        examples: Examples,
        categorical: tuple[str, ...],
        params: dict[str, Any],
        parent: str | None = None,
    ) -> Binned:
        """Bin examples once; the table goes to LightGBM as it is."""
        lgb = booster.lightgbm()
        start = None
        if parent is not None:
            start = _open(parent).predict(
                examples.features, raw_score=True, num_threads=params["num_threads"]
            )
        weighted = bool((examples.weights != 1).any())
        data = lgb.Dataset(
            examples.features,
            examples.labels,
            group=examples.sizes,
            weight=examples.weights if weighted else None,
            init_score=start,
            categorical_feature=list(categorical),
            params=params,
        )
        return cls(examples, params, parent, data.construct(), start)

    def grow(self, rounds: int, say: Say = silent) -> str:
        """Add trees after the parent's, or grow a new model.

        Args:
            rounds: at least 1.

        Returns:
            The model text, the parent's trees first.
        """
        model = booster.lightgbm().Booster(self.params, self.data)
        _add(model, rounds, say)
        if self.parent is not None:
            _put_first(model, _open(self.parent))
        return text(model)


def refit(
    parent: str,
    examples: Examples,
    categorical: tuple[str, ...],
    params: dict[str, Any],
    decay: float,
    rounds: int,
    say: Say = silent,
    leaves: Leaves | None = None,
) -> str:
    """Move a model's leaf values towards some groups, then add trees, on bins made once.

    New leaf = decay * old + (1 - decay) * fitted, tree after tree. LightGBM's own `refit` throws
    its bins and scores away, and continuing from the result would make both anew; here the trees
    follow on the same. The result is the same, but for which features a tree draws.

    Args:
        leaves: the parent's on these rows, where they are known; see `fallen_into`.

    Returns:
        The model text.
    """
    lgb = booster.lightgbm()
    if leaves is None:
        leaves = fallen_into(parent, examples.features, params["num_threads"])
    binned = Binned.of(examples, categorical, params)
    moved = lgb.Booster({**params, "refit_decay_rate": decay}, binned.data)
    _put_first(moved, _open(parent))
    from lightgbm.basic import _LIB, _safe_call

    _safe_call(
        _LIB.LGBM_BoosterRefit(
            moved._handle,
            leaves.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            ctypes.c_int32(leaves.shape[0]),
            ctypes.c_int32(leaves.shape[1]),
        )
    )
    _grow_wide_again(moved, int(params["num_leaves"]))
    _add(moved, rounds, say)
    return text(moved)


def _grow_wide_again(model: Any, leaves: int) -> None:
    """Refitting leaves room for the leaves of the last tree alone; a new number makes room."""
    model.reset_parameter({"num_leaves": leaves + 1})
    model.reset_parameter({"num_leaves": leaves})


def text(model: Any, trees: int = -1, first: int = 0) -> str:
    """A model's text, which does not tell where it was grown: threads, addresses, ports.

    Args:
        trees: how many; -1 for all.
        first: number of the first one.
    """
    found = str(model.model_to_string(num_iteration=trees, start_iteration=first))
    for pattern, stead in _OF_THE_MACHINE:
        found = pattern.sub(stead, found)
    return found


def scores(model: str, rows: pa.Table, threads: int) -> npt.NDArray[np.float64]:
    """n scores of a model text.

    Args:
        rows: n candidates with the model's features, in its order.
    """
    found = _open(model).predict(rows.combine_chunks(), num_threads=threads)
    return np.asarray(found, dtype=np.float64)


def fallen_into(model: str, rows: pa.Table, threads: int) -> Leaves:
    """n x t numbers of the leaves that n candidates fall into, in a model of t trees."""
    found = _open(model).predict(rows.combine_chunks(), pred_leaf=True, num_threads=threads)
    return np.ascontiguousarray(found, dtype=np.int32).reshape(rows.num_rows, -1)


def scores_of(model: str, leaves: Leaves) -> npt.NDArray[np.float64]:
    """n scores of a model text, by the leaves: the same as `scores`, without another walk."""
    total = np.zeros(len(leaves))
    for tree, line in enumerate(_LEAF_VALUES.findall(model)):
        total += np.array(line.split(), dtype=np.float64)[leaves[:, tree]]
    return total


def appended(parent: str | None, model: str) -> Any:
    """A booster of a parent's trees, if there is one, and then a model's own."""
    found = _open(model)
    if parent is not None:
        _put_first(found, _open(parent))
    return found


def _open(model: str) -> Any:
    return booster.lightgbm().Booster(model_str=model)


def _add(model: Any, rounds: int, say: Say) -> None:
    for done in range(rounds):
        model.update()
        say(done + 1, rounds)


def _put_first(model: Any, parent: Any) -> None:
    """Put a parent's trees before a model's own: LightGBM has it in its C interface alone."""
    from lightgbm.basic import _LIB, _safe_call

    _safe_call(_LIB.LGBM_BoosterMerge(model._handle, parent._handle))
