"""Real transactions: one run of eight weeks is eight runs of one; a rerun is the same run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.validated_lake import ValidatedLake, of_step, real_log
from pipelines import features
from pipelines.shared.hashing import content_hash

pytestmark = pytest.mark.slow

WEEKS = 8
SHARE = 0.02


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> tuple[ValidatedLake, ValidatedLake]:
    """The same eight weeks, run at once and one by one."""
    log = real_log(WEEKS, SHARE)
    at_once, one_by_one = (
        ValidatedLake.at(tmp_path_factory.mktemp(name), "completejourney")
        for name in ("once", "weekly")
    )
    for shelf in (at_once, one_by_one):
        for step in range(WEEKS):
            shelf.validated(step, of_step(log, step))
    features.run(at_once.run(0, WEEKS - 1))
    for step in range(WEEKS):
        features.run(one_by_one.run(step))
    return at_once, one_by_one


def _hashes(shelf: ValidatedLake) -> dict[str, str]:
    lake = shelf.run(0).lake
    order = {
        "groups/basket": ["group_id", "item_id"],
        "group_index/basket": ["group_id"],
        "state/events": ["event_key", "_position"],
        "state/items": ["item_id"],
        "state/periods": ["period_key"],
        "state/shoppers": ["shopper_id"],
        "state/vocabulary": ["feature", "code"],
        "state/factors_shoppers": ["shopper_id"],
        "state/factors_items": ["item_id"],
    }
    hashes = {}
    for table, names in order.items():
        rows = lake.read(table)
        assert rows.num_rows > 0, table
        by_key = [(name, "ascending") for name in ["interval_start", *names]]
        hashes[table] = content_hash(rows.sort_by(by_key))
    return hashes


def test_eight_weeks_at_once_equal_eight_weekly_runs(
    shelves: tuple[ValidatedLake, ValidatedLake],
) -> None:
    assert _hashes(shelves[0]) == _hashes(shelves[1])


def test_a_rerun_changes_nothing(shelves: tuple[ValidatedLake, ValidatedLake]) -> None:
    shelf = shelves[1]
    run = shelf.run(4)
    before = _hashes(shelf), run.ledger.manifests("features")
    features.run(run)
    assert (_hashes(shelf), run.ledger.manifests("features")) == before


def test_serving_is_the_same_again_whatever_the_threads(
    shelves: tuple[ValidatedLake, ValidatedLake],
) -> None:
    four = replace(shelves[0], settings=shelves[0].settings.model_copy(update={"threads": 4}))
    served = [features.serve(shelf.run(WEEKS - 1)) for shelf in (*shelves, four)]
    assert served[0] == served[1] == served[2]
    assert 0 < served[0].rows <= served[0].shoppers * 300


def test_candidates_find_a_fair_part_of_the_baskets(
    shelves: tuple[ValidatedLake, ValidatedLake],
) -> None:
    last = shelves[0].run(0).ledger.manifests("features")[-1]
    assert last.details["candidate_recall"] > 0.25, "2 % of the shoppers, seven weeks of history"
    assert last.counts["rows"] <= 300 * last.counts["groups"]
