"""The bootstrap keeps its promise, also when the groups of a shopper resemble each other."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from pipelines.evaluate.bootstrap import paired_gain, seed, widened


def test_identical_models_gain_exactly_nothing() -> None:
    gain = paired_gain(np.zeros(40), np.arange(40), 0.9, 1)
    assert (gain.mean, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    gains = np.random.default_rng(0).normal(size=60)
    shoppers = np.arange(60) % 20
    one = paired_gain(gains, shoppers, 0.9, seed("2017-01-02", "forward"))
    assert one == paired_gain(gains, shoppers, 0.9, seed("2017-01-02", "forward"))
    assert one != paired_gain(gains, shoppers, 0.9, seed("2017-01-09", "forward"))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Groups of one shopper share a taste, so that they tell less than as many shoppers would."""
    generator = np.random.default_rng(7)
    clustered, plain, runs = 0, 0, 300
    shoppers = np.repeat(np.arange(60), 6)
    for run in range(runs):
        taste = generator.normal(0.02, 0.1, size=60)
        gains = taste[shoppers] + generator.normal(0, 0.05, size=len(shoppers))
        interval = paired_gain(gains, shoppers, 0.9, run, resamples=400)
        clustered += interval.low <= 0.02 <= interval.high
        naive = paired_gain(gains, np.arange(len(gains)), 0.9, run, resamples=400)
        plain += naive.low <= 0.02 <= naive.high
    assert 0.84 <= clustered / runs <= 0.95
    # What forgetting the clusters would do: a promise that is badly broken.
    assert plain / runs < 0.75


def test_shoppers_with_many_groups_weigh_by_their_groups() -> None:
    gains = np.array([1.0] * 9 + [0.0])
    assert paired_gain(gains, np.array([0] * 9 + [1]), 0.9, 1).mean == pytest.approx(0.9)


@pytest.mark.parametrize("gains", [[np.nan, 0.1], [np.inf, 0.1], []])
def test_what_cannot_be_known_is_not_a_number(gains: list[float]) -> None:
    gain = paired_gain(np.array(gains), np.arange(len(gains)), 0.9, 1)
    assert isnan(gain.mean)
    assert isnan(gain.low)
    assert isnan(gain.high)


def test_one_shopper_proves_nothing() -> None:
    assert isnan(paired_gain(np.ones(50), np.zeros(50, np.int64), 0.9, 1).low)


def test_two_challengers_share_the_risk() -> None:
    assert widened(0.9, 1) == pytest.approx(0.9)
    assert widened(0.9, 2) == pytest.approx(0.95)
    assert widened(0.9, 0) == pytest.approx(0.9)


def test_the_best_of_two_useless_challengers_seldom_passes() -> None:
    generator = np.random.default_rng(3)
    passed, runs = 0, 300
    for run in range(runs):
        gains = generator.normal(0, 0.1, size=(2, 150))
        best = gains[np.argmax(gains.mean(axis=1))]
        passed += paired_gain(best, np.arange(150), widened(0.9, 2), run, resamples=400).low > 0
    assert passed / runs <= 0.08  # 5 % and what 300 runs may stray
