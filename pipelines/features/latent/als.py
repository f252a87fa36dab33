"""Latent factors: shoppers and items as points whose inner product says how well they match.

Implicit ALS (Hu, Koren and Volinsky 2008) through the `implicit` library: a full fit on a schedule
and, between fits, the same least squares for the touched shoppers and items alone.

Factors lie on a grid: a score is a sum of products that float64 holds exactly, so it is the same
to the bit in any order of summation, in any batch, here or in a database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared.columns import ITEM, SHOPPER

FACTORS: Final = 32
CONFIDENCE: Final = 10.0
"""What a strength of 1 adds to the confidence 1 that every pair has (α of the paper)."""
REGULARIZATION: Final = 30.0
ITERATIONS: Final = 8
"""These four by recall@100 of the bundled year's next baskets, also of items new to the shopper."""
SEED: Final = 20170102

LATENT_SCORE: Final = "latent_score"
NAMES: Final = tuple(f"f{place:02d}" for place in range(FACTORS))

_GRID: Final = float(1 << 18)
_LARGEST: Final = 32.0
# A factor fits into 23 bits, a product of two into 46 and the sum of 32 products into 51 of 53.
_BLOCK_BYTES: Final = 1 << 26

Array = Any
"""An Arrow array."""
Floats = npt.NDArray[np.float32]
Strengths = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Factors:
    """Shoppers and items in the space of latent factors."""

    shoppers: Array
    """Ids, ascending, without repeats."""
    items: Array
    shopper_factors: Floats
    """shoppers × `FACTORS`, multiples of 2⁻¹⁸ in [-32, 32)."""
    item_factors: Floats


@dataclass(frozen=True)
class Touched:
    """Shoppers, or items, whose pairs have changed, with all the pairs that they have now."""

    ids: Array
    """Those touched; one without a pair loses its factors."""
    shoppers: Array
    """Of the pairs of `ids`, as in `fit`."""
    items: Array
    strengths: Strengths


def fit(shoppers: Array, items: Array, strengths: Strengths) -> Factors:
    """Factors of everyone and everything in some pairs; the order of rows does not matter.

    Minimises Σ c(u,i) (p(u,i) - x(u)·y(i))² + λ (Σ |x(u)|² + Σ |y(i)|²) over all shoppers and
    items, p = 1 for the given pairs and 0 otherwise, c = 1 + α · strength (Hu, Koren and Volinsky
    2008, equation 3), by alternating conjugate gradients (Takács, Pilászy and Tikk 2011).

    Args:
        shoppers, items: ids of the pairs; strengths of a repeated pair are added.
        strengths: how firmly the shopper chose the item, above 0; 1 is one order of today.

    Raises:
        ValueError: a strength is not a positive number.
    """
    everyone, everything = _ids(shoppers), _ids(items)
    pairs = _matrix(_places(shoppers, everyone), _places(items, everything), strengths,
                    len(everyone), len(everything))  # fmt: skip
    if pairs.nnz == 0:
        return Factors(everyone, everything, _no_factors(), _no_factors())
    with _model() as model:
        model.fit(pairs, show_progress=False)
        return Factors(
            everyone, everything, _on_grid(model.user_factors), _on_grid(model.item_factors)
        )


def update(factors: Factors, shoppers: Touched, items: Touched) -> Factors:
    """Factors after a change: least squares for the touched shoppers, then for the touched items.

    Each is solved exactly with the other side held fixed (equations 4 and 5 of the paper); the
    factors of all others stay as they are, to the bit. Pairs with an id that the other side does
    not know do not count; a touched id without another pair is left out of the result.

    Raises:
        ValueError: a strength is not a positive number.
    """
    everyone, x = _resolved(
        (factors.shoppers, factors.shopper_factors), (factors.items, factors.item_factors),
        shoppers.ids, (shoppers.shoppers, shoppers.items, shoppers.strengths),
    )  # fmt: skip
    everything, y = _resolved(
        (factors.items, factors.item_factors), (everyone, x),
        items.ids, (items.items, items.shoppers, items.strengths),
    )  # fmt: skip
    return Factors(everyone, everything, x, y)


def score(factors: Factors, shoppers: Array, items: Array) -> Array:
    """The score of each pair as float32; null where the shopper or the item has no factors."""
    left, right = _places(shoppers, factors.shoppers), _places(items, factors.items)
    known = np.flatnonzero((left >= 0) & (right >= 0))
    scores = np.zeros(len(left), np.float32)
    step = _BLOCK_BYTES // (8 * FACTORS)
    for start in range(0, len(known), step):
        rows = known[start : start + step]
        x = factors.shopper_factors[left[rows]].astype(np.float64)
        scores[rows] = (x * factors.item_factors[right[rows]]).sum(axis=1)
    absent = np.ones(len(left), bool)
    absent[known] = False
    return pa.array(scores, pa.float32(), mask=absent)


def top(factors: Factors, shoppers: Array, n: int) -> pa.Table:
    """The best items of some shoppers.

    Args:
        shoppers: ids, without repeats; those without factors get nothing.
        n: items a shopper.

    Returns:
        shopper_id, item_id, latent_score; shoppers in the order given, the best item first, equal
        scores by item id. Works in blocks of shoppers, in some 300 MB at most.
    """
    rows = _places(shoppers, factors.shoppers)
    rows = rows[rows >= 0]
    wanted = min(n, len(factors.items))
    across = factors.item_factors.T.astype(np.float64)
    size = max(1, _BLOCK_BYTES // (8 * max(1, len(factors.items))))
    blocks = [_best(np.empty((0, 0), np.float64), 0)]
    for start in range(0, len(rows) if wanted else 0, size):
        block = rows[start : start + size]
        scores = factors.shopper_factors[block].astype(np.float64) @ across
        places, best, values = _best(scores, wanted)
        blocks.append((block[places], best, values))
    whom, what, values = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return pa.table(
        {
            SHOPPER: factors.shoppers.take(pa.array(whom)),
            ITEM: factors.items.take(pa.array(what)),
            LATENT_SCORE: pa.array(values, pa.float32()),
        }
    )


def to_tables(factors: Factors) -> tuple[pa.Table, pa.Table]:
    """Two tables to be stored: an id and a float32 column a factor, sorted by id."""
    return (
        _table(SHOPPER, factors.shoppers, factors.shopper_factors),
        _table(ITEM, factors.items, factors.item_factors),
    )


def from_tables(shoppers: pa.Table, items: pa.Table) -> Factors:
    """The factors that `to_tables` stored, whatever the order of the rows."""
    by_shopper, by_item = shoppers.sort_by(SHOPPER), items.sort_by(ITEM)
    return Factors(
        _whole(by_shopper[SHOPPER]), _whole(by_item[ITEM]), _numbers(by_shopper), _numbers(by_item)
    )


def _table(name: str, ids: Array, factors: Floats) -> pa.Table:
    columns = [pa.array(np.ascontiguousarray(column)) for column in factors.T]
    return pa.Table.from_arrays([ids, *columns], names=[name, *NAMES])


def _numbers(rows: pa.Table) -> Floats:
    columns = [np.asarray(rows[name], np.float32) for name in NAMES]
    return np.ascontiguousarray(np.stack(columns, axis=1))


@contextmanager
def _model() -> Iterator[Any]:
    """A model that gives the same bits every time: one thread here and in the linear algebra."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield AlternatingLeastSquares(
            factors=FACTORS,
            regularization=REGULARIZATION,
            iterations=ITERATIONS,
            num_threads=1,
            random_state=SEED,
        )


def _resolved(
    side: tuple[Array, Floats],
    other: tuple[Array, Floats],
    touched: Array,
    pairs: tuple[Array, Array, Strengths],
) -> tuple[Array, Floats]:
    """One side's ids and factors after the touched of it were solved again, the other held."""
    ids, factors = side
    named = _ids(touched)
    mine, theirs = _places(pairs[0], named), _places(pairs[1], other[0])
    counts = (mine >= 0) & (theirs >= 0)
    rows = _matrix(mine[counts], theirs[counts], pairs[2][counts], len(named), len(other[0]))
    left = np.flatnonzero(np.diff(rows.indptr))
    solved = _no_factors()
    if len(left):
        with _model() as model:
            model.item_factors = other[1]
            solved = _on_grid(model.recalculate_user(left, rows[left]))
    untouched = np.flatnonzero(_places(ids, named) < 0)
    all_ids = pa.concat_arrays([ids.take(pa.array(untouched)), named.take(pa.array(left))])
    order = np.asarray(pc.sort_indices(all_ids))
    all_factors = np.concatenate([factors[untouched], solved])
    return all_ids.take(pa.array(order)), np.ascontiguousarray(all_factors[order])


def _matrix(rows: Ints, columns: Ints, strengths: Strengths, height: int, width: int) -> Any:
    """Confidences, 1 + α · strength, as a sparse matrix: the same whatever the pairs' order."""
    from scipy.sparse import csr_matrix

    if not (np.isfinite(strengths) & (strengths > 0)).all():
        wrong = strengths[~(np.isfinite(strengths) & (strengths > 0))][0]
        raise ValueError(f"strength {wrong} of a pair is not a positive number; leave the pair out")
    cells = rows * max(1, width) + columns
    order = np.lexsort((strengths, cells))
    distinct, first = np.unique(cells[order], return_index=True)
    added = np.add.reduceat(strengths[order], first) if len(first) else strengths[:0]
    confidences = (1 + CONFIDENCE * added).astype(np.float32)
    at = np.divmod(distinct, max(1, width))
    return csr_matrix((confidences, at), shape=(height, width))


def _best(scores: Any, n: int) -> tuple[Ints, Ints, Floats]:
    """Row, column and score of each row's `n` largest; equal scores by column."""
    single = scores.astype(np.float32) + np.float32(0)  # no -0.0, which equals 0.0 but sorts below
    bits = single.view(np.int32)
    ranked = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64) << 32
    ranked -= np.arange(scores.shape[1])
    best = np.argpartition(ranked, scores.shape[1] - n, axis=1)[:, scores.shape[1] - n :]
    keys = np.take_along_axis(ranked, best, axis=1)
    best = np.take_along_axis(best, np.argsort(-keys, axis=1, kind="stable"), axis=1)
    rows = np.repeat(np.arange(len(scores)), n)
    columns = best.ravel()
    return rows, columns, single[rows, columns]


def _ids(values: Array) -> Array:
    distinct = _whole(pc.unique(values))
    return distinct.take(pc.sort_indices(distinct))


def _places(values: Any, ids: Array) -> Ints:
    """Where each value stands among some ids; -1 for one that does not."""
    places = pc.fill_null(pc.index_in(values, value_set=ids), -1)
    return np.asarray(places).astype(np.int64)


def _whole(values: Any) -> Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _on_grid(factors: Any) -> Floats:
    rounded = np.round(factors.astype(np.float64) * _GRID) / _GRID
    return np.asarray(np.clip(rounded, -_LARGEST, _LARGEST - 1 / _GRID), np.float32)


def _no_factors() -> Floats:
    return np.empty((0, FACTORS), np.float32)
