"""Kill -9 at any instant and at every step: a rerun leaves what the source holds (laws 1 and 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.corner.extractor import STEPS, Extractor
from benchmarks.corner.kills import History, survived
from benchmarks.corner.modes import MODES, CaptureMode
from benchmarks.corner.shop import opened
from benchmarks.corner.writers import Busy

KILLS = 23
"""Of each mode; 207 together."""
ENTRIES = [
    pytest.param(mode, id=str(mode), marks=[pytest.mark.services, pytest.mark.slow])
    for mode in MODES
]


def server_of(mode: CaptureMode, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(mode.server) if mode.server else None


@pytest.mark.parametrize("mode", ENTRIES)
def test_a_kill_at_any_instant(
    mode: CaptureMode, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = survived(mode, server_of(mode, request), tmp_path, KILLS, seed=11)
    print(f"{mode}: {found.hits} of {found.kills} kills hit, all of them survived")
    assert found.hits > KILLS / 2


@pytest.mark.parametrize("mode", ENTRIES)
def test_a_kill_at_each_step(
    mode: CaptureMode, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In the first snapshot, then once at each step of a further interval."""
    steps = [step for step in STEPS if mode.capture == "wal" or step != "during the release"]
    with (
        opened(mode, server_of(mode, request), tmp_path, choose_time=True) as corner,
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
