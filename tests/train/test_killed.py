"""A training that is killed leaves nothing half, and its rerun is the run that was meant."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import train
from pipelines.shared.models import challengers
from tests.train.baskets import Installation, interval

pytestmark = pytest.mark.slow

_CHILD = """
import sys
from pathlib import Path
from pipelines import train
from tests.train.baskets import Installation

def report(done, wanted):
    print(done, flush=True)

shop = Installation.of(Path(sys.argv[1]), warm_up_intervals=4, refit_rounds=40, boost_rounds=40)
train.run(shop.run(4), report)
print("done", flush=True)
"""
CHANGED = {"warm_up_intervals": 4, "refit_rounds": 40, "boost_rounds": 40}


@pytest.mark.parametrize("after", ["1", "20", "40"])
def test_a_killed_training_is_rerun_to_the_same_model(
    tmp_path: Path, real_champion: Path, after: str
) -> None:
    clean = Installation.at(tmp_path / "clean", real_champion, **CHANGED)
    expected = train.run(clean.run(4))

    killed = Installation.at(tmp_path / "killed", real_champion, **CHANGED)
    before = _models(killed)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path / "killed")],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == after:
            child.send_signal(signal.SIGKILL)
            break
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    recorded = challengers.read(killed.any.ledger, "basket", interval(4))
    assert recorded is None or recorded.details() == expected.details()
    assert before <= _models(killed)

    again = train.run(killed.run(4))
    assert again.details() == expected.details()
    assert _models(killed) == _models(clean)


def _models(shop: Installation) -> set[tuple[str, bytes]]:
    root = shop.any.lake.local_root / "models"
    # What a kill leaves of a file begins with a dot and is overwritten by the rerun.
    return {
        (str(path.relative_to(root)), path.read_bytes())
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
