"""Groups from logged lists: labels within the window, maturity, carry-over. Three weeks."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Any

import pytest

from pipelines import features
from tests.features.small_logs import Web, at, rows_of

pytestmark = pytest.mark.slow

Row = dict[str, Any]


@dataclass(frozen=True)
class Week:
    """What a week left."""

    rows: list[Row]
    index: dict[str, Row]
    still_open: list[Row]
    counts: dict[str, int]

    def labels(self, group: str) -> dict[str, int]:
        """Item → label of a group."""
        return {row["item_id"]: row["label"] for row in self.rows if row["group_id"] == group}


def _log(web: Web) -> None:
    web.act(0.5, "0", "purchase", "u", "a")
    web.show(2, "strongest", "u", "cab")
    web.act(2.1, "1", "view", "u", "a")
    web.act(2.2, "2", "purchase", "u", "a")
    web.act(2.3, "3", "cart", "u", "b")
    web.act(2.3, "4", "purchase", "v", "c")
    web.show(4, "edges", "u", "abc")
    web.act(4, "5", "view", "u", "a")
    web.act(5, "6", "view", "u", "b")
    web.act(3.9, "7", "view", "u", "c")
    web.show(4, "taken back", "v", "a")
    web.add("shown", 4.5, "delete", list_id="taken back", sku="a")
    web.show(5, "changed", "w", "ab")
    web.act(5.1, "8", "purchase", "w", "a")
    web.act(5.2, "8", "view", "w", "a", op="update", happened=5.1)
    web.show(6.5, "open", "u", "ab")
    web.show(8, "open", "u", "c", happened=6.5)
    web.act(7.2, "9", "cart", "u", "b")
    web.act(7.6, "10", "purchase", "u", "b")
    web.show(9, "late", "u", "ab", happened=5)


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> list[Week]:
    """The tiny shop, whose attribution window is a day, for three weeks; the last is empty."""
    web = Web(tmp_path_factory.mktemp("web"))
    _log(web)
    web.validate(0, 1, 2)
    features.run(web.shelf.run(0, 2))
    manifests = web.shelf.run(0).ledger.manifests("features")
    return [
        Week(
            rows_of(web.shelf.run(step), "groups/search"),
            {row["group_id"]: row for row in rows_of(web.shelf.run(step), "group_index/search")},
            rows_of(web.shelf.run(step), "state/open_groups"),
            dict(manifests[step].counts),
        )
        for step in range(3)
    ]


def test_the_strongest_event_within_the_window_is_the_label(weeks: list[Week]) -> None:
    assert weeks[0].labels("strongest") == {"a": 3, "b": 2, "c": 0}
    group = weeks[0].index["strongest"]
    assert (group["mature_at"], group["n_relevant"], group["n_candidates"]) == (at(3), 2, 3)
    assert group["ideal_dcg_at_10"] == pytest.approx(7 / log2(2) + 3 / log2(3))
    places = {r["item_id"]: r["shown_position"] for r in weeks[0].rows if r["group_id"] == "edges"}
    assert places == {"a": 0, "b": 1, "c": 2}


def test_the_window_is_half_open(weeks: list[Week]) -> None:
    assert weeks[0].labels("edges") == {"a": 1, "b": 0, "c": 0}


def test_a_list_taken_back_in_its_week_is_no_group(weeks: list[Week]) -> None:
    assert set(weeks[0].index) == {"strongest", "edges", "changed"}


def test_an_event_that_changes_its_kind_counts_once(weeks: list[Week]) -> None:
    assert weeks[0].labels("changed") == {"a": 1, "b": 0}


def test_an_open_window_is_carried_over_with_the_features_of_its_own_step(
    weeks: list[Week],
) -> None:
    assert {row["group_id"] for row in weeks[0].still_open} == {"open"}
    assert weeks[0].counts["open"] == 1
    assert weeks[1].labels("open") == {"a": 0, "b": 2}, "the purchase came after the window"
    assert weeks[1].still_open == []
    group = weeks[1].index["open"]
    assert (group["group_time"], group["mature_at"]) == (at(6.5), at(7.5))
    orders = [row["pair_orders"] for row in weeks[1].rows if row["group_id"] == "open"]
    assert orders == [0, 0], "at the start of its own step nothing was known"


def test_a_late_list_matures_when_it_is_known(weeks: list[Week]) -> None:
    assert weeks[1].index["late"]["mature_at"] == at(9)
    row = next(row for row in weeks[1].rows if row["group_id"] == "late")
    assert row["pair_days_since"] == pytest.approx(7 - 4), "seen from the start of the week"


def test_a_list_is_formed_once(weeks: list[Week]) -> None:
    assert set(weeks[1].labels("open")) == {"a", "b"}
    assert weeks[1].counts["skipped_late"] == 1


def test_a_week_without_lists_is_empty(weeks: list[Week]) -> None:
    assert weeks[2] == Week([], {}, [], weeks[2].counts)
    assert set(weeks[2].counts.values()) == {0}
