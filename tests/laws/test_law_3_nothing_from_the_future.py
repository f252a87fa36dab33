"""Law 3: a feature uses only what was committed before its group's interval began."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.validated_lake import FIRST, Tables, ValidatedLake, of_step, real_log
from pipelines import features
from pipelines.shared import columns
from tests.features.small_logs import log_of

pytestmark = pytest.mark.slow

STEP = 2
START = FIRST + STEP * timedelta(days=7)


def _with(log: Tables, shelf: ValidatedLake, planted: dict[str, list[dict[str, object]]]) -> Tables:
    """The log and planted changes, at positions after its own."""
    merged = dict(log)
    for table, rows in planted.items():
        first = log[table].num_rows + 1
        numbered = [{columns.POSITION: first + n} | row for n, row in enumerate(rows)]
        merged[table] = pa.concat_tables([log[table], log_of(shelf.shop, table, numbered)])
    return merged


def _planted(
    log: Tables, committed: datetime, part: slice = slice(None)
) -> dict[str, list[dict[str, object]]]:
    """Everything that could show: sales, cancellations, prices, categories, promotions."""
    old = of_step(log, STEP - 1, since=0)["order_lines"]
    inserts = (
        old.filter(pc.equal(old[columns.OP], pa.scalar("insert"))).slice(0, 400).to_pylist()[part]
    )
    sales = [
        row | {"order_id": 10**9 + row[columns.POSITION], "quantity": 9}
        | {columns.COMMITTED_AT: committed}
        | {"ordered_at": committed + timedelta(hours=(n % 400) - 200)}
        for n, row in enumerate(inserts)
    ]  # fmt: skip
    cancelled = [
        row | {columns.OP: "delete", columns.COMMITTED_AT: committed} for row in inserts[::2]
    ]
    products = log["products"].slice(0, 2000).to_pylist()[part]
    dearer = [
        row | {"price": 99, "product_category": "PLANTED", columns.OP: "update"}
        | {columns.COMMITTED_AT: committed}
        for row in products
    ]  # fmt: skip
    promoted = [
        {"product_id": row["product_id"], "valid_from": START, "valid_until": START}
        | {"valid_until": START + timedelta(days=30), "display_share": 1.0, "mailer_share": 1.0}
        | {columns.COMMITTED_AT: committed}
        for row in inserts
    ]
    changes = {
        "order_lines": [*sales, *cancelled], "products": dearer, "promotions": promoted
    }  # fmt: skip
    return {
        table: [{k: v for k, v in row.items() if k != columns.POSITION} for row in rows]
        for table, rows in changes.items()
    }


def _features(shelf: ValidatedLake, groups: pa.Array | None = None) -> pa.Table:
    """Features of the step's groups, or of some of them."""
    run = shelf.run(STEP)
    names = run.ledger.manifests("features")[-1].details["features"]
    rows = run.lake.read("groups/basket", [run.interval])
    if groups is not None:
        rows = rows.filter(pc.is_in(rows[columns.GROUP], groups))
    keys = [columns.GROUP, columns.ITEM]
    return rows.select([*keys, *names]).sort_by([(key, "ascending") for key in keys])


@dataclass(frozen=True)
class Weeks:
    """Three real weeks of a few households, and the last one's features."""

    shelf: ValidatedLake
    log: Tables
    before: pa.Table

    def again(self, planted: dict[str, list[dict[str, object]]], first: int) -> pa.Table:
        """The features of the same groups after planting, taken from step `first` on."""
        grown = _with(self.log, self.shelf, planted)
        for step in range(first, STEP + 1):
            self.shelf.validated(step, of_step(grown, step))
        features.run(self.shelf.run(first, STEP))
        return _features(self.shelf, self.before[columns.GROUP].unique())


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    """The weeks as they were."""
    log = real_log(STEP + 1, 0.03)
    shelf = ValidatedLake.at(tmp_path_factory.mktemp("law3"), "completejourney")
    for step in range(STEP + 1):
        shelf.validated(step, of_step(log, step))
    features.run(shelf.run(0, STEP))
    before = _features(shelf)
    assert len(before[columns.GROUP].unique()) > 30
    return Weeks(shelf, log, before)


def test_what_is_committed_at_or_after_the_start_changes_no_feature(weeks: Weeks) -> None:
    first, second = (
        _planted(weeks.log, START + timedelta(days=days), part)
        for days, part in ((0, slice(0, None, 2)), (3, slice(1, None, 2)))
    )
    both = {table: [*first[table], *second[table]] for table in first}
    assert weeks.again(both, STEP).equals(weeks.before)


def test_what_claims_to_happen_after_the_start_changes_no_feature(weeks: Weeks) -> None:
    """Known before the start, but dated after it: by hours (a wrong clock) or by weeks."""
    sales = [
        row | {"ordered_at": START + timedelta(hours=place)}
        for place, row in enumerate(_planted(weeks.log, START - timedelta(hours=1))["order_lines"])
        if row[columns.OP] == columns.INSERT
    ]
    assert weeks.again({"order_lines": sales}, STEP - 1).equals(weeks.before)


def test_the_same_plant_before_the_start_does_show(weeks: Weeks) -> None:
    """The tests above could see it."""
    after = weeks.again(_planted(weeks.log, START - timedelta(days=1)), STEP - 1)
    assert after.num_rows > 0
    assert not after.equals(weeks.before)


def _gain_over_chance(rows: pa.Table, names: list[str], shuffled: int | None = None) -> float:
    """How far above chance a model ranks the last week, learned on the weeks before it.

    Args:
        shuffled: seed of a permutation of the labels within each group; None for the labels as
            they are.
    """
    table = rows.to_pandas()
    table["week"] = table[columns.INTERVAL].rank(method="dense")
    taught, asked = (table[table.week < table.week.max()], table[table.week == table.week.max()])
    labels = taught[columns.LABEL].to_numpy()
    sizes = taught.groupby(columns.GROUP, sort=False).size().to_numpy()
    if shuffled is not None:
        draw = np.random.default_rng(shuffled)
        ends = np.cumsum(sizes)
        parts = np.split(labels, ends[:-1])
        labels = np.concatenate([draw.permutation(part) for part in parts])
    model = lightgbm.train(
        {"objective": "lambdarank", "verbose": -1, "seed": 1, "num_threads": 1, "num_leaves": 15},
        lightgbm.Dataset(taught[names].to_numpy(np.float32), labels, group=sizes),
        40,
    )
    scores = model.predict(asked[names].to_numpy(np.float32), num_threads=1)
    places = asked[columns.GROUP].astype("category").cat.codes.to_numpy()
    pairs = pd.DataFrame({"group": places, "label": asked[columns.LABEL], "score": scores})
    ranks = pairs.groupby("group").score.rank(pct=True)
    return float(ranks[pairs.label > 0].mean() - 0.5)


def test_from_shuffled_labels_nothing_is_learned(tmp_path: Path) -> None:
    """The measure itself rewards nothing but knowledge: no order of rows, no place in a group.

    That no feature carries its row's own label is what the plants above show.
    """
    log = real_log(6, 0.05)
    shelf = ValidatedLake.at(tmp_path, "completejourney")
    for step in range(6):
        shelf.validated(step, of_step(log, step))
    features.run(shelf.run(0, 5))
    names = shelf.run(5).ledger.manifests("features")[-1].details["features"]
    lake = shelf.run(5).lake
    rows = lake.read("groups/basket").sort_by(
        [(name, "ascending") for name in (columns.INTERVAL, columns.GROUP, columns.ITEM)]
    )
    rows = rows.filter(pc.greater(rows[columns.INTERVAL], "2017-01-09"))
    assert _gain_over_chance(rows, names) > 0.2
    # One draw's trees lie 0.03 from the next one's, mostly below chance: where few rows lie, most
    # leaves saw no positive label.
    gains = [_gain_over_chance(rows, names, shuffled=seed) for seed in range(17, 21)]
    assert np.mean(gains) < 0.03
