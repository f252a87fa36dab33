"""Intervals are half-open, in UTC, and lie on the shop's grid."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shared.errors import IntervalError
from pipelines.shared.intervals import Grid, Interval, require_past, utc

MONDAY = datetime(2017, 1, 2, tzinfo=UTC)
GRID = Grid(MONDAY, timedelta(days=7))


def test_a_time_lies_in_one_step_whose_start_is_inside_and_whose_end_is_not():
    week = Interval.of("2017-01-09", "2017-01-16")
    assert GRID.step_of(week.start) == GRID.step_of(week.end - timedelta(microseconds=1)) == week
    assert GRID.step_of(week.end).start == week.end
    assert GRID.step_of(MONDAY - timedelta(days=1)).end == MONDAY


def test_an_end_before_its_start_is_refused():
    with pytest.raises(IntervalError, match="not after its start 2017-01-09T00:00:00Z"):
        Interval.of("2017-01-09", "2017-01-02")


def test_an_empty_interval_is_refused():
    with pytest.raises(IntervalError):
        Interval.of("2017-01-02", "2017-01-02")


def test_a_misaligned_edge_names_its_neighbours():
    with pytest.raises(IntervalError, match=r"2017-01-02T00:00:00Z and 2017-01-09T00:00:00Z"):
        tuple(GRID.steps(Interval.of("2017-01-03", "2017-01-09")))


def test_a_future_interval_is_refused():
    with pytest.raises(IntervalError, match="ends in the future"):
        require_past(Interval.of("2017-01-02", "2017-01-09"), MONDAY)


def test_what_is_no_time_is_refused():
    with pytest.raises(IntervalError, match="'next week' is not a time"):
        utc("next week")


def test_other_zones_become_utc():
    assert utc("2017-01-02T01:00:00+01:00") == MONDAY


@given(first=st.integers(-60, 60), length=st.integers(1, 60))
def test_steps_tile_the_interval(first, length):
    interval = Interval(MONDAY + timedelta(weeks=first), MONDAY + timedelta(weeks=first + length))
    steps = list(GRID.steps(interval))
    assert len(steps) == length
    assert steps[0].start == interval.start
    assert steps[-1].end == interval.end
    assert all(left.end == right.start for left, right in itertools.pairwise(steps))


def test_airflows_datetimes_become_plain_ones():
    pendulum = pytest.importorskip("pendulum")
    converted = utc(pendulum.datetime(2017, 1, 2, 1, 2, 3, tz="Europe/Berlin"))
    assert type(converted) is datetime
    assert converted == datetime(2017, 1, 2, 0, 2, 3, tzinfo=UTC)
