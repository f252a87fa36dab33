"""The replay sample: bounded, younger rather than older, the same on a rerun."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shared import columns as c
from pipelines.train import plan
from pipelines.train.data import groups, replay
from pipelines.train.data.groups import Selection
from tests.train.baskets import Installation, interval

WEEK = timedelta(days=7)


def _past(weeks: int, each: int) -> Selection:
    ids = [f"w{week}-{number}" for week in range(weeks) for number in range(each)]
    keys = [interval(week).key for week in range(weeks) for _ in range(each)]
    return Selection(pa.table({c.GROUP: ids, c.INTERVAL: keys}), 0)


@given(
    st.integers(1, 8), st.integers(1, 40), st.integers(1, 400), st.randoms(use_true_random=False)
)
def test_it_is_bounded_and_does_not_depend_on_the_order(weeks, each, size, random) -> None:
    past, until = _past(weeks, each), interval(weeks).start
    drawn = replay.sample(past, size, until, 4 * WEEK, seed=1)
    assert drawn.groups == min(size, past.groups)
    order = list(range(past.groups))
    random.shuffle(order)
    shuffled = Selection(past.index.take(pa.array(order)), 0)
    again = replay.sample(shuffled, size, until, 4 * WEEK, seed=1)
    assert set(again.index[c.GROUP].to_pylist()) == set(drawn.index[c.GROUP].to_pylist())


def test_the_chance_halves_with_each_half_life() -> None:
    past, until = _past(8, 4_000), interval(8).start
    drawn = replay.sample(past, 1_600, until, 2 * WEEK, seed=3)
    counted = np.array(
        [pc.sum(pc.equal(drawn.index[c.INTERVAL], interval(week).key)).as_py() for week in range(8)]
    )
    # Far from exhausting any week, counts follow the weights: 2^(1/2) from week to week.
    ratios = counted[2:] / counted[:-2]
    assert np.all((ratios > 1.5) & (ratios < 2.7)), counted


def test_growing_older_keeps_most_of_the_sample() -> None:
    past = _past(8, 500)
    one = replay.sample(past, 400, interval(8).start, 4 * WEEK, seed=1)
    two = replay.sample(past, 400, interval(9).start, 4 * WEEK, seed=1)
    assert one.index.equals(two.index)
    other = replay.sample(past, 400, interval(8).start, 4 * WEEK, seed=2)
    assert not other.index.equals(one.index)


def test_it_is_drawn_from_what_the_index_holds_and_never_from_the_memory_holdout(
    shop: Installation,
) -> None:
    run = shop.run(8)
    past = groups.select(run, plan.window(run, plan.steps(run)), None, interval(7).end)
    drawn = replay.sample(past, 100, interval(8).end, 4 * WEEK, seed=17)
    ids = set(drawn.index[c.GROUP].to_pylist())
    assert len(ids) == 100
    assert ids <= shop.teaching(interval(0).start, interval(7).end)
