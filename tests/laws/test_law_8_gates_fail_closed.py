"""Law 8: no data, NaN, too few groups, a crashed metric: the champion stays, with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import evaluate
from pipelines.evaluate import bootstrap, compare
from pipelines.shared.errors import CorruptPartition, IntervalOverlaps
from pipelines.shared.lake import Lake
from pipelines.shared.models import booster
from tests.evaluate.real_groups import (
    SHOP,
    Installation,
    MemoryRegistry,
    MemoryTracker,
    build,
    decide,
)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A first model is champion; read only."""
    folder = tmp_path_factory.mktemp("champion")
    vocabulary = build(Lake(str(folder / "built"), SHOP))
    made = Installation.at(folder, folder / "built", vocabulary)
    run = made.run(0, 5)
    made.trained(run, made.fit(run, "first"))
    evaluation = evaluate.run(run, MemoryTracker())
    assert decide(run, evaluation.verdict.outcome).champion == 1
    return made


@pytest.fixture
def installation(tmp_path: Path, champion: Installation) -> Installation:
    """A copy of it."""
    built = Path(champion.settings.lake)
    shutil.copy(built.parent / "ledger.db", tmp_path / "ledger.db")
    return Installation.at(tmp_path, built, champion.vocabulary)


def judged(installation: Installation, **changed: Any) -> str:
    """A challenger that is the champion itself, of a week; the first reason of its rejection."""
    run = installation.run(5, **changed)
    text = (run.lake.local_root / run.ledger.version(1).artifact).read_text()
    installation.trained(run, installation.save(run, "same", text, 1, 30), parent=1)
    tracker = MemoryTracker(numbers={("", "", ""): 1})
    verdict = evaluate.run(run, tracker).verdict
    assert verdict.outcome == "reject"
    registry = MemoryRegistry()
    assert decide(run, verdict.outcome, registry).champion == registry.alias == 1
    assert run.ledger.decisions()[-1].reasons == verdict.reasons
    return verdict.reasons[0]


def test_the_same_model_is_no_better(installation: Installation) -> None:
    assert "+0.0000 [+0.0000, +0.0000]" in judged(installation)


def test_too_few_groups(installation: Installation) -> None:
    assert "too few: needed 5,000 groups" in judged(installation, min_groups=5000)


def test_no_groups_at_all(installation: Installation) -> None:
    for step in installation.run(0, 9).steps:
        for table in ("groups/basket", "group_index/basket"):
            lake = installation.run(0).lake
            rows = lake.read(table, [step]).slice(0, 0).drop_columns(["interval_start"])
            lake.replace(table, step, rows)
    assert judged(installation).startswith("0 forward groups of 0 shoppers, too few")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def broken(path: Path, rows: Any, threads: int) -> Any:
        return np.full(rows.num_rows, value)

    monkeypatch.setattr(booster, "score", broken)
    assert "is not a number" in judged(installation)


@pytest.mark.parametrize("crash", [ZeroDivisionError("by zero"), KeyError("label")])
@pytest.mark.parametrize("place", [(bootstrap, "paired_gain"), (compare, "baseline")])
def test_a_crashed_metric(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[Any, str],
    crash: Exception,
) -> None:
    def fail(*args: Any, **named: Any) -> Any:
        raise crash

    monkeypatch.setattr(*place, fail)
    assert f"the comparison failed ({type(crash).__name__}: {crash})" in judged(installation)


def test_a_model_file_that_is_gone_or_another_is_an_error_and_no_decision(
    installation: Installation,
) -> None:
    run = installation.run(5)
    path = run.lake.local_root / run.ledger.version(1).artifact
    text = path.read_text()
    installation.trained(run, installation.save(run, "same", text, 1, 30), parent=1)
    path.write_text("not a model")
    with pytest.raises(CorruptPartition, match="not the one that was trained"):
        evaluate.run(run, MemoryTracker())
    path.unlink()
    with pytest.raises(CorruptPartition, match="is gone"):
        evaluate.run(run, MemoryTracker())
    assert len(run.ledger.decisions()) == 1


def test_a_model_that_wants_other_features(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.evaluate.real_groups.FEATURES", ("pair_orders", "unheard_of"))
    assert "FeatureMismatch" in judged(installation)


def test_over_budget(installation: Installation) -> None:
    run = installation.run(5, max_trees=20)
    installation.trained(run, installation.fit(run, "boost", 1, 25), parent=1)
    verdict = evaluate.run(run, MemoryTracker(numbers={("", "", ""): 1})).verdict
    assert verdict.outcome == "reject"
    assert "25 trees, over budget: allowed 20" in verdict.reasons


def test_a_damaged_lake_is_an_error_and_no_decision(installation: Installation) -> None:
    run = installation.run(5)
    installation.trained(run, installation.fit(run, "boost", 1, 5), parent=1)
    for file in (run.lake.local_root / "groups/basket").rglob("*.parquet"):
        file.write_bytes(b"no parquet")
    with pytest.raises(CorruptPartition, match="damaged"):
        evaluate.run(run, MemoryTracker())
    assert len(run.ledger.decisions()) == 1


def test_replaying_old_history_says_so(installation: Installation) -> None:
    tracker = MemoryTracker(numbers={("", "", ""): 1})
    later = installation.run(6)
    installation.trained(later, installation.fit(later, "boost", 1, rounds=5), parent=1)
    evaluate.run(later, tracker)
    decide(later, "reject")
    run = installation.run(5)
    installation.trained(run, installation.fit(run, "boost", 1, rounds=6), parent=1)
    evaluation = evaluate.run(run, tracker)
    assert evaluation.verdict.outcome == "reject"
    assert "was decided already" in evaluation.verdict.reasons[0]
    assert decide(run, "reject").champion == 1
    assert evaluate.run(run, tracker) == evaluation
    assert len(run.ledger.manifests("evaluate")) == 3


def test_an_interval_inside_a_decided_one_is_refused(installation: Installation) -> None:
    run = installation.run(2)
    installation.trained(run, installation.fit(run, "boost", rounds=5))
    evaluate.run(run, MemoryTracker(numbers={("", "", ""): 1}))
    with pytest.raises(IntervalOverlaps, match="which is decided"):
        decide(run, "reject")
    assert len(run.ledger.decisions()) == 1
