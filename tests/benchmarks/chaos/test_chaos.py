"""Runs that die, disks that fill, files that break: the same seeds each time (laws 1, 2 and 7)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2])
def test_everything_heals(seed: int) -> None:
    """In a process of its own: the benchmark forks, which a process with threads cannot."""
    command = [sys.executable, "-m", "benchmarks", "chaos", "--seed", str(seed), "--json"]
    size = ["--weeks", "4", "--faults", "3", "--heavy", "500"]
    ended = subprocess.run([*command, *size], cwd=PROJECT, capture_output=True, text=True)
    assert ended.stdout, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["complaints"] == []
    assert found["faults"] == found["healed"] >= 6
    assert [found[name] for name in ("rows_lost", "rows_doubled", "decisions_differing")] == [0] * 3
