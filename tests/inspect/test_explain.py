"""Where values come from: the features shown are those that the groups hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.validated_lake import FIRST, ValidatedLake, of_step, real_log
from pipelines import features
from pipelines.features import catalogue
from pipelines.features.state.storage import Layout
from pipelines.inspect import explain, feature_tables
from pipelines.inspect.explain import NotThere
from pipelines.shared import columns
from pipelines.shared.declaration import load_shop
from pipelines.shared.run import Installation
from pipelines.shared.settings import PROJECT

SHOP = load_shop("completejourney", PROJECT / "shops")
NAMES = {each.name for each in catalogue.catalogue(Layout(SHOP))}
WEEKS = 4
Row = dict[str, object]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> ValidatedLake:
    """Four real weeks with features."""
    shelf = ValidatedLake.at(tmp_path_factory.mktemp("explained"), "completejourney")
    log = real_log(WEEKS, 0.01)
    for step in range(WEEKS):
        shelf.validated(step, of_step(log, step))
    features.run(shelf.run(0, WEEKS - 1))
    return shelf


def _installation(shelf: ValidatedLake) -> Installation:
    return Installation.open(shelf.settings, shelf.shop.shop)


def _a_group(shelf: ValidatedLake) -> tuple[Row, pa.Table]:
    """A group of the last step whose time lies in it, and its rows by rank."""
    run = shelf.run(WEEKS - 1)
    index = run.lake.read("group_index/basket", [run.interval])
    punctual = pc.greater_equal(
        index[columns.GROUP_TIME], pa.scalar(run.interval.start, pa.timestamp("us", tz="UTC"))
    )
    group = index.filter(punctual).sort_by(columns.GROUP).slice(0, 1).to_pylist()[0]
    rows = run.lake.read("groups/basket", [run.interval])
    rows = rows.filter(pc.equal(rows[columns.GROUP], group[columns.GROUP]))
    return group, rows.sort_by("prior_rank")


@pytest.mark.slow
def test_shown_values_are_those_of_the_group(shelf: ValidatedLake) -> None:
    group, rows = _a_group(shelf)
    at = group[columns.GROUP_TIME]
    assert isinstance(at, datetime)
    shown = explain.show(_installation(shelf), str(group[columns.SHOPPER]), at, most=20)
    assert [each.rank for each in shown.items] == list(range(1, 21))
    for each, row in zip(shown.items, rows.slice(0, 20).to_pylist(), strict=True):
        assert each.item == row[columns.ITEM]
        assert each.values == {name: row[name] for name in NAMES}


@pytest.mark.slow
def test_an_item_is_explained_by_its_counters(shelf: ValidatedLake) -> None:
    group, rows = _a_group(shelf)
    at, item = group[columns.GROUP_TIME], rows[columns.ITEM][0].as_py()
    assert isinstance(at, datetime)
    (explained,) = explain.show(
        _installation(shelf), str(group[columns.SHOPPER]), at, str(item)
    ).items
    since = (at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)
    days = (since - explained.counters["si_last"]) / 86_400_000_000
    assert explained.values["pair_days_since"] == pytest.approx(days)


@pytest.mark.slow
def test_a_table_has_a_row_a_feature(shelf: ValidatedLake) -> None:
    group, _ = _a_group(shelf)
    at = group[columns.GROUP_TIME]
    assert isinstance(at, datetime)
    shown = explain.show(_installation(shelf), str(group[columns.SHOPPER]), at)
    assert feature_tables.values(shown, SHOP).row_count == len(NAMES)
    assert f"before {FIRST + timedelta(weeks=WEEKS - 1):%Y-%m-%d}" in feature_tables.heading(shown)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shopper", "day", "item", "message"),
    [
        ("0", 22, None, "shopper '0' is not known at 2017-01-24 00:00 UTC; known are "),
        ("ann", 22, None, "shopper_id 'ann' is no int64"),
        (None, 22, "0", "item '0' is not known"),
        (None, 2, None, "need the step before it, .* from 2017-01-09 to 2017-02-06"),
        (None, 400, None, "Choose another time"),
    ],
)
def test_what_is_unknown_is_named(
    shelf: ValidatedLake, shopper: str | None, day: int, item: str | None, message: str
) -> None:
    group, _ = _a_group(shelf)
    who = str(group[columns.SHOPPER]) if shopper is None else shopper
    with pytest.raises(NotThere, match=message):
        explain.show(_installation(shelf), who, FIRST + timedelta(days=day), item)
