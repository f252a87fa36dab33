"""Law 11: what a run reads grows with what changed and with the window, not with the history."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines import features
from pipelines.features import counters
from pipelines.features.groups import arrivals
from pipelines.shared.lake import Lake
from tests.features.small_logs import Grocery

pytestmark = pytest.mark.slow

WINDOW_WEEKS = 4


def _read_in_the_last_week(
    folder: Path, weeks: int, monkeypatch: pytest.MonkeyPatch
) -> Counter[str]:
    """Rows that the last of some equal weeks reads of each table."""
    shop = Grocery(folder)
    for week in range(weeks):
        for day in range(1, 7):
            shop.line(7 * week + day, 10 * week + day, day % 3 + 1, day)
            shop.line(7 * week + day, 10 * week + day, day % 3 + 1, (day + week) % 6 + 1)
        shop.add(
            "products", 7 * week + 3, "update", product_id=1, product_category="drinks",
            department="d", brand="brand 1", price=week + 1,
        )  # fmt: skip
    shop.validate(*range(weeks))
    features.run(shop.shelf.run(0, weeks - 2))
    read: Counter[str] = Counter()
    plain = Lake.read

    def counting(lake: Lake, table: str, *args: Any, **named: Any) -> Any:
        found = plain(lake, table, *args, **named)
        read[table] += found.num_rows
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "read", counting)
        features.run(shop.shelf.run(weeks - 1))
    return read


def test_twice_the_history_is_not_a_row_more_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "WINDOW_DAYS", 7 * WINDOW_WEEKS)
    monkeypatch.setattr(counters, "AFFINITY_DAYS", 7 * WINDOW_WEEKS)
    monkeypatch.setattr(arrivals, "LOOKBACK_STEPS", WINDOW_WEEKS)
    # Both histories are longer than the window and than the lookback for groups that come late.
    short = _read_in_the_last_week(tmp_path / "short", 6, monkeypatch)
    long = _read_in_the_last_week(tmp_path / "long", 12, monkeypatch)
    assert short["valid/order_lines"] == 2 * 6
    assert short["state/events"] > 2 * 6, "the window's, not only the week's"
    assert long == short
