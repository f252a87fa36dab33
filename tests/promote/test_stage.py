"""Deciding: what is written, what is left, and what a rerun mends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines import promote
from pipelines.promote.stage import NotEvaluated
from pipelines.shared.errors import TrackingUnavailable
from pipelines.shared.ledger import Decision, Manifest
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings
from tests.evaluate.real_groups import SHOP, MemoryRegistry, week

FIGURES = {"gain": {"mean": 0.01, "low": 0.004, "high": 0.016},
           "challengers": [{"strategy": "boost", "version": 1}]}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = Settings(
        lake=str(tmp_path),
        ledger_url=f"sqlite:///{tmp_path}/ledger.db",  # type: ignore[arg-type]
        mlflow_uri="unused",
    )
    return Run.of(settings, SHOP, week(0))


def evaluated(run: Run, outcome: str = "promote", version: int | None = 1) -> Run:
    verdict = {"outcome": outcome, "version": version, "reasons": ["+0.0040 at worst"]}
    details = {"verdict": verdict, "compared_with": None, "evaluation": FIGURES}
    run.ledger.record(Manifest("evaluate", "basket", run.interval, {}, "", details=details))
    return run


class BreakingRegistry(MemoryRegistry):
    """Goes away after the alias, or before it."""

    def __init__(self, *, before: bool) -> None:
        super().__init__()
        self.before = before

    def follow(self, champion: int | None) -> None:
        """Fail, or move the alias."""
        if self.before:
            raise TrackingUnavailable("MLflow does not answer")
        super().follow(champion)

    def mark(self, decision: Decision, versions: dict[str, int]) -> None:
        """Fail."""
        raise TrackingUnavailable("MLflow does not answer")


def test_a_promotion_is_a_decision_an_alias_and_a_mark(run: Run) -> None:
    registry = MemoryRegistry()
    decided = promote.promote(evaluated(run), registry)
    assert decided.as_dict() == {
        "outcome": "promote", "reasons": ["+0.0040 at worst"], "promoted": 1, "champion": 1,
    }  # fmt: skip
    assert (registry.alias, registry.marks) == (1, {run.interval.key: "promote"})
    [decision] = run.ledger.decisions()
    assert decision.evaluation == FIGURES
    [manifest] = run.ledger.manifests("promote")
    assert manifest.details == {"outcome": "promote", "promoted": 1}


def test_a_rerun_changes_nothing(run: Run) -> None:
    registry = MemoryRegistry()
    first = promote.promote(evaluated(run), registry)
    assert promote.promote(run, registry) == first
    # Also when the other branch is taken by hand: what was decided stands.
    assert promote.reject(run, registry) == first
    assert len(run.ledger.decisions()) == len(run.ledger.manifests("promote")) == 1


def test_a_verdict_to_reject_is_never_promoted(run: Run) -> None:
    decided = promote.promote(evaluated(run, "reject"), MemoryRegistry())
    assert (decided.outcome, decided.champion) == ("reject", None)


def test_a_verdict_without_a_registered_version_is_never_promoted(run: Run) -> None:
    decided = promote.promote(evaluated(run, "promote", None), MemoryRegistry())
    assert (decided.outcome, decided.champion) == ("reject", None)


@pytest.mark.parametrize("before", [True, False])
def test_when_mlflow_goes_away_the_decision_stands_and_a_rerun_heals(
    run: Run, before: bool
) -> None:
    with pytest.raises(TrackingUnavailable):
        promote.promote(evaluated(run), BreakingRegistry(before=before))
    assert run.ledger.champion() == 1
    assert not run.ledger.manifests("promote")
    registry = MemoryRegistry()
    assert promote.promote(run, registry).champion == registry.alias == 1
    assert len(run.ledger.decisions()) == 1


def test_a_kill_inside_the_lock_leaves_no_decision(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.shared.ledger import Ledger

    class Killed(BaseException):
        pass

    written = Ledger.decide

    def dying(self: Ledger, *args: Any) -> None:
        written(self, *args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "decide", dying)
        with pytest.raises(Killed):
            promote.promote(evaluated(run), MemoryRegistry())
    assert run.ledger.decisions() == []
    assert promote.promote(run, MemoryRegistry()).champion == 1


def test_an_interval_that_was_never_evaluated_says_so(run: Run) -> None:
    with pytest.raises(NotEvaluated, match="run the stage evaluate first"):
        promote.promote(run, MemoryRegistry())
