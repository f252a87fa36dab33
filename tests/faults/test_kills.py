"""Kill -9 at any instant and at every step: a rerun leaves what the source holds (laws 1 and 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contracts.ways import WAYS, Busy, Way, opened
from tests.faults.extractor import STEPS, Extractor
from tests.faults.kills import History, survived

KILLS = 23
"""Of each way; 207 together."""
ENTRIES = [
    pytest.param(way, id=str(way), marks=[pytest.mark.services, pytest.mark.slow]) for way in WAYS
]


def server_of(way: Way, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(way.server) if way.server else None


@pytest.mark.parametrize("way", ENTRIES)
def test_a_kill_at_any_instant(way: Way, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = survived(way, server_of(way, request), tmp_path, KILLS, seed=11)
    print(f"{way}: {found.hits} of {found.kills} kills hit, all of them survived")
    assert found.hits > KILLS / 2


@pytest.mark.parametrize("way", ENTRIES)
def test_a_kill_at_each_step(way: Way, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """In the first snapshot, then once at each step of a further interval."""
    steps = [step for step in STEPS if way.capture == "wal" or step != "during the release"]
    with (
        opened(way, server_of(way, request), tmp_path, choose_time=True) as corner,
        Extractor(tmp_path / "log") as extractor,
        Busy(corner, count=2, pause_s=0.04) as busy,
    ):
        corner.add(*(f"hot {n}" for n in range(3)), stock=0)
        history = History(corner, extractor, busy, tmp_path / "installation")
        for step in ("among the rows", *steps):
            history.begin()
            assert history.die(step), step
            history.rerun()
        history.compare()
