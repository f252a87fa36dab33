"""Latent factors: least squares by its normal equations, the same bits again, touched rows only."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.validated_lake import real_log
from pipelines.features.latent import als
from pipelines.features.latent.als import Factors, Touched
from pipelines.shared.hashing import content_hash

Pairs = tuple[pa.Array, pa.Array, np.ndarray]


def _pairs(seed: int = 1, shoppers: int = 60, items: int = 90) -> Pairs:
    """Shoppers of two kinds, who mostly buy from their half of the items."""
    draws = np.random.default_rng(seed)
    who = np.repeat(np.arange(shoppers), 12)
    own = draws.random(len(who)) < 0.9
    half = np.where(own, who % 2, 1 - who % 2)
    what = half * (items // 2) + draws.integers(0, items // 2, len(who))
    cells = np.unique(who * items + what)
    strengths = draws.integers(1, 8, len(cells)) / 2
    names = pa.array([f"s{cell // items:03d}" for cell in cells])
    return names, pa.array(cells % items, pa.int64()), strengths


def _bits(factors: Factors) -> list[str]:
    return [content_hash(table) for table in als.to_tables(factors)]


def _nobody() -> Touched:
    empty = pa.array([], pa.string())
    return Touched(empty, empty, pa.array([], pa.int64()), np.array([]))


def _nothing() -> Touched:
    empty = pa.array([], pa.int64())
    return Touched(empty, pa.array([], pa.string()), empty, np.array([]))


def test_the_order_of_rows_and_a_second_fit_change_no_bit() -> None:
    shoppers, items, strengths = _pairs()
    order = np.random.default_rng(2).permutation(len(strengths))
    mixed = shoppers.take(pa.array(order)), items.take(pa.array(order)), strengths[order]
    first = _bits(als.fit(shoppers, items, strengths))
    assert first == _bits(als.fit(shoppers, items, strengths)) == _bits(als.fit(*mixed))


def test_strengths_of_a_repeated_pair_are_added() -> None:
    shoppers, items, strengths = _pairs()
    halves = (
        pa.concat_arrays([shoppers, shoppers]),
        pa.concat_arrays([items, items]),
        np.concatenate([strengths / 2, strengths / 2]),
    )
    assert _bits(als.fit(*halves)) == _bits(als.fit(shoppers, items, strengths))


def test_a_touched_shopper_solves_the_normal_equations() -> None:
    factors = als.fit(*_pairs())
    ids = pa.array([3, 50, 7], pa.int64())
    strengths = np.array([2.0, 0.5, 1.0])
    new = Touched(pa.array(["new"]), pa.array(["new"] * 3), ids, strengths)
    after = als.update(factors, new, _nothing())

    y = factors.item_factors.astype(np.float64)
    chosen = y[np.asarray(pc.index_in(ids, value_set=factors.items))]
    more = als.CONFIDENCE * strengths
    left = y.T @ y + (chosen.T * more) @ chosen + als.REGULARIZATION * np.eye(als.FACTORS)
    expected = np.linalg.solve(left, chosen.T @ (1 + more))
    place = after.shoppers.index("new").as_py()
    assert after.shopper_factors[place] == pytest.approx(expected, abs=1e-4)


def test_untouched_factors_keep_their_bits() -> None:
    shoppers, items, strengths = _pairs()
    factors = als.fit(shoppers, items, strengths)
    mine = pc.equal(shoppers, "s007")
    rows = np.asarray(mine)
    touched = Touched(
        pa.array(["s007"]), shoppers.filter(mine), items.filter(mine), strengths[rows] * 3
    )
    after = als.update(factors, touched, _nothing())
    changed = (after.shopper_factors != factors.shopper_factors).any(axis=1)
    assert after.shoppers.filter(pa.array(changed)).to_pylist() == ["s007"]
    assert (after.item_factors == factors.item_factors).all()


def test_a_new_item_of_a_new_shopper_is_reached_through_what_is_known() -> None:
    factors = als.fit(*_pairs())
    shoppers = Touched(
        pa.array(["zoe"]), pa.array(["zoe"] * 3), pa.array([1, 2, 999]), np.ones(3)
    )  # fmt: skip
    items = Touched(
        pa.array([999]), pa.array(["zoe", "s000"]), pa.array([999, 999]), np.ones(2)
    )  # fmt: skip
    after = als.update(factors, shoppers, items)
    assert "zoe" in after.shoppers.to_pylist()
    assert 999 in after.items.to_pylist()
    own, other = als.score(after, pa.array(["s002", "s003"]), pa.array([999, 999])).to_pylist()
    assert own > other, "the item is bought by those of even number"


def test_what_has_no_pairs_left_is_dropped() -> None:
    factors = als.fit(*_pairs())
    gone = Touched(pa.array(["s001"]), pa.array([], pa.string()), pa.array([], pa.int64()),
                   np.array([]))  # fmt: skip
    after = als.update(factors, gone, _nothing())
    assert set(factors.shoppers.to_pylist()) - set(after.shoppers.to_pylist()) == {"s001"}
    assert als.score(after, pa.array(["s001"]), pa.array([3])).to_pylist() == [None]


def test_touching_nothing_is_nothing() -> None:
    factors = als.fit(*_pairs())
    assert _bits(als.update(factors, _nobody(), _nothing())) == _bits(factors)


def test_an_update_from_nothing() -> None:
    none = als.fit(pa.array([], pa.string()), pa.array([], pa.int64()), np.array([]))
    assert als.top(none, pa.array(["s001"]), 5).num_rows == 0
    assert als.score(none, pa.array(["s001"]), pa.array([1])).to_pylist() == [None]
    shoppers, items, strengths = _pairs()
    touched = Touched(pc.unique(shoppers), shoppers, items, strengths)
    after = als.update(none, touched, Touched(pc.unique(items), shoppers, items, strengths))
    assert len(after.shoppers) == 0, "no item has factors yet: a fit has to come first"


def test_each_kind_of_shopper_gets_the_items_of_its_half() -> None:
    shoppers, items, strengths = _pairs()
    best = als.top(als.fit(shoppers, items, strengths), pa.array(["s000", "s001"]), 10)
    by_shopper = {"s000": 0, "s001": 45}
    for name, first in by_shopper.items():
        ids = best.filter(pc.equal(best["shopper_id"], name))["item_id"].to_numpy()
        assert len(ids) == 10
        assert ((ids >= first) & (ids < first + 45)).mean() >= 0.8


def test_top_equals_score_and_sort() -> None:
    factors = als.fit(*_pairs())
    asked = pa.array(["s059", "nobody", "s003"])
    best = als.top(factors, asked, 7)
    for name in ("s059", "s003"):
        scores = als.score(factors, pa.array([name] * len(factors.items)), factors.items)
        expected = sorted(
            (-value, item)
            for value, item in zip(scores.to_pylist(), factors.items.to_pylist(), strict=True)
        )[:7]
        found = best.filter(pc.equal(best["shopper_id"], name))
        assert found["item_id"].to_pylist() == [item for _, item in expected]
        assert found["latent_score"].to_pylist() == [-value for value, _ in expected]
    assert best["shopper_id"].to_pylist() == ["s059"] * 7 + ["s003"] * 7


def test_equal_scores_go_by_item_and_the_block_size_shows_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draws = np.random.default_rng(5)
    few = draws.integers(-2, 3, (40, als.FACTORS)).astype(np.float32)
    factors = Factors(
        pa.array(np.arange(20)), pa.array(np.arange(40)), few[:20], np.repeat(few[20:], 2, axis=0)
    )
    whole = als.top(factors, factors.shoppers, 15)
    monkeypatch.setattr(als, "_BLOCK_BYTES", 8 * 40 * 3)
    assert als.top(factors, factors.shoppers, 15).equals(whole)
    for shopper in range(20):
        found = whole.filter(pc.equal(whole["shopper_id"], shopper))
        keys = list(zip(found["latent_score"].to_pylist(), found["item_id"].to_pylist(),
                        strict=True))  # fmt: skip
        assert keys == sorted(keys, key=lambda each: (-each[0], each[1]))


def test_more_wanted_than_there_is() -> None:
    factors = als.fit(*_pairs())
    best = als.top(factors, pa.array(["s000"]), 1000)
    assert sorted(best["item_id"].to_pylist()) == factors.items.to_pylist()


def test_tables_bring_the_same_factors_back_in_any_order() -> None:
    factors = als.fit(*_pairs())
    shoppers, items = als.to_tables(factors)
    assert shoppers.column_names == ["shopper_id", *als.NAMES]
    back = als.from_tables(shoppers.sort_by([("f00", "descending")]), items)
    assert _bits(back) == _bits(factors)


def test_scores_are_exact_sums_of_products() -> None:
    factors = als.fit(*_pairs())
    x, y = factors.shopper_factors.astype(np.float64), factors.item_factors.astype(np.float64)
    there, back = np.zeros((len(x), len(y))), np.zeros((len(x), len(y)))
    for place in range(als.FACTORS):
        there += np.outer(x[:, place], y[:, place])
        back += np.outer(x[:, -1 - place], y[:, -1 - place])
    assert (there == back).all()


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf")])
def test_a_strength_that_is_none_is_named(strength: float) -> None:
    with pytest.raises(ValueError, match=str(strength)):
        als.fit(pa.array(["a"]), pa.array([1]), np.array([strength]))


@pytest.mark.slow
def test_next_baskets_of_the_real_shop_are_found() -> None:
    """Recall@100 of the week after twelve, beside what sells best."""
    lines = real_log(13, 0.05)["order_lines"]
    lines = lines.filter(pc.equal(lines["_op"], "insert"))
    days = pc.divide(pc.cast(pc.cast(lines["ordered_at"], pa.timestamp("us")), pa.int64()),
                     86_400_000_000)  # fmt: skip
    past = pc.less(days, 17_168 + 7 * 12)
    counted = lines.filter(past).group_by(["household_id", "product_id"]).aggregate(
        [("product_id", "count")]
    )  # fmt: skip
    factors = als.fit(
        counted["household_id"].combine_chunks(),
        counted["product_id"].combine_chunks(),
        counted["product_id_count"].to_numpy().astype(np.float64),
    )
    later = lines.filter(pc.invert(past)).group_by(["household_id", "product_id"]).aggregate([])
    best = als.top(factors, factors.shoppers, 100)
    sold = counted.group_by("product_id").aggregate([("product_id", "count")])
    hundred = sold.sort_by([("product_id_count", "descending")])["product_id"][:100]
    popular = pc.mean(pc.is_in(later["product_id"], value_set=hundred)).as_py()
    met = later.join(
        best.select(["shopper_id", "item_id"]), ["household_id", "product_id"],
        ["shopper_id", "item_id"], join_type="inner",
    )  # fmt: skip
    assert met.num_rows / later.num_rows > 1.5 * popular > 0
