"""Law 5: no group scores a model that has learned from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines import evaluate
from pipelines.evaluate import holdouts
from pipelines.evaluate.compare import Contender, HoldoutLeak, require_unseen
from pipelines.shared import columns as c
from pipelines.shared import hashing
from pipelines.shared.lake import Lake
from pipelines.shared.run import Run
from tests.evaluate.real_groups import SHOP, Installation, MemoryTracker, build


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, int]]]:
    root = tmp_path_factory.mktemp("groups") / "lake"
    return root, build(Lake(str(root), SHOP))


@pytest.fixture
def installation(tmp_path: Path, real: tuple[Path, dict[str, dict[str, int]]]) -> Installation:
    return Installation.at(tmp_path, *real)


def both(run: Run) -> tuple[holdouts.Holdout, holdouts.Holdout]:
    cut = run.interval.end - timedelta(days=3)
    return holdouts.forward(run, cut, set()), holdouts.memory(run, set())


def test_a_model_that_learned_through_a_held_out_group_does_not_score_it(
    installation: Installation,
) -> None:
    run = installation.run(4)
    forward, memory = both(run)
    assert forward.earliest is not None
    model = Contender("boost", Path("boost.txt"), forward.earliest, 10)
    require_unseen([model], (forward, memory))
    later = replace(model, trained_through=forward.earliest + timedelta(microseconds=1))
    with pytest.raises(HoldoutLeak, match=r"boost \(boost.txt\) has learned through"):
        require_unseen([later], (forward, memory))


def test_a_leak_ends_as_a_rejection_with_the_cause(installation: Installation) -> None:
    run = installation.run(0, 5)
    challenger = installation.fit(run, "first", rounds=5)
    installation.trained(run, replace(challenger, trained_through=run.interval.end))
    verdict = evaluate.run(run, MemoryTracker()).verdict
    assert verdict.outcome == "reject"
    assert "HoldoutLeak" in verdict.reasons[0]


def test_the_memory_holdout_is_the_hash_of_the_group_alone(installation: Installation) -> None:
    forward, memory = both(installation.run(4))
    assert memory.groups > 0
    assert forward.groups > 0
    assert (hashing.draw("memory", memory.index[c.GROUP]) < 0.2).all()
    assert (hashing.draw("memory", forward.index[c.GROUP]) >= 0.2).all()


def test_a_group_in_both_holdouts_is_refused(installation: Installation) -> None:
    forward, memory = both(installation.run(4))
    with pytest.raises(HoldoutLeak, match="in both holdouts"):
        require_unseen([], (forward, replace(forward, split="memory", index=memory_marks(forward))))
    with pytest.raises(HoldoutLeak, match="not marked"):
        require_unseen([], (memory, replace(forward, split="memory")))


def memory_marks(holdout: holdouts.Holdout) -> pa.Table:
    """The same groups, marked as memory."""
    place = holdout.index.column_names.index(c.MEMORY)
    return holdout.index.set_column(place, c.MEMORY, pa.array([True] * holdout.groups))
