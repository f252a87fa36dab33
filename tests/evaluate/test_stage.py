"""The stage on real baskets, with models that really learned from them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines import evaluate
from pipelines.evaluate import holdouts
from pipelines.evaluate.stage import NotTrained, RegistryMismatch
from pipelines.shared import columns as c
from pipelines.shared.errors import TrackingUnavailable
from pipelines.shared.ledger import Manifest
from tests.evaluate.real_groups import FEATURES, Installation, MemoryTracker, decide, week

SCORES = "scores/basket"


def first_model(installation: Installation, tracker: MemoryTracker) -> evaluate.Evaluation:
    """Five weeks at once, as a first run does, decided."""
    run = installation.run(0, 5)
    installation.trained(run, installation.fit(run, "first"))
    evaluation = evaluate.run(run, tracker)
    decide(run, evaluation.verdict.outcome)
    return evaluation


def test_a_first_model_is_compared_with_the_shoppers_own_habits(
    installation: Installation,
) -> None:
    tracker = MemoryTracker()
    evaluation = first_model(installation, tracker)
    figures = evaluation.as_dict()["evaluation"]
    assert evaluation.compared_with is None
    assert evaluation.verdict.outcome == "promote"
    assert "better than the baseline" in evaluation.verdict.reasons[0]
    assert figures["champion"] is None
    [challenger] = figures["challengers"]
    assert challenger["version"] == evaluation.version == 1
    assert challenger["ndcg_at_10"] > figures["baseline"]["ndcg_at_10"]
    assert figures["gain"]["low"] <= figures["gain"]["mean"] <= figures["gain"]["high"]
    assert 0 < figures["candidate_recall"] < 1
    assert 0 < figures["means"]["first"]["forward"]["coverage_at_10"] < 1
    assert installation.run(0).ledger.champion() == 1


def test_a_week_later_both_challengers_meet_the_champion(installation: Installation) -> None:
    tracker = MemoryTracker()
    first_model(installation, tracker)
    run = installation.run(5)
    made = [
        installation.fit(run, name, 1, rounds) for name, rounds in (("boost", 25), ("refit", 9))
    ]
    installation.trained(run, *made, parent=1)
    evaluation = evaluate.run(run, tracker)
    figures = evaluation.as_dict()["evaluation"]
    assert figures["champion"]["version"] == evaluation.compared_with == 1
    assert [each["strategy"] for each in figures["challengers"]] == ["boost", "refit"]
    best = max(figures["challengers"], key=lambda each: each["ndcg_at_10"])
    assert best["strategy"] == evaluation.verdict.challenger
    gain = best["ndcg_at_10"] - figures["champion"]["ndcg_at_10"]
    assert figures["gain"]["mean"] == pytest.approx(gain)
    json.dumps(evaluation.as_dict(), allow_nan=False)
    report = tracker.reports[-1]
    assert report.ordinal == 6
    assert {data.name for data in report.data} == {"groups", "memory"}
    assert report.metrics["ndcg_at_10/champion"] == figures["champion"]["ndcg_at_10"]

    scores = run.lake.read(SCORES, [run.interval])
    assert set(scores["model"].to_pylist()) == {"baseline", "champion", "boost", "refit"}
    forward = scores.filter((pc.field("split") == "forward") & (pc.field("model") == "boost"))
    assert forward.num_rows == figures["groups"]["forward_holdout"]
    stored = next(each for each in figures["challengers"] if each["strategy"] == "boost")
    assert np.mean(forward["ndcg_at_10"].to_numpy()) == pytest.approx(stored["ndcg_at_10"])


def test_the_holdouts_are_exactly_the_groups_that_the_cut_leaves(
    installation: Installation,
) -> None:
    run = installation.run(5, memory_intervals=3)
    cut = run.interval.end - 3 * (week(1).start - week(0).start) / 7
    forward, memory = holdouts.forward(run, cut, set()), holdouts.memory(run, set())
    assert min(forward.groups, memory.groups) > 0
    index = run.lake.read("group_index/basket")
    mature, kept = index[c.MATURE_AT], index[c.MEMORY]
    wanted = pc.and_(pc.greater_equal(mature, pa.scalar(cut)), pc.invert(kept))
    wanted = pc.and_(wanted, pc.less(mature, pa.scalar(run.interval.end)))
    assert forward.index[c.GROUP].to_pylist() == sorted(index.filter(wanted)[c.GROUP].to_pylist())
    reach = pc.and_(kept, pc.greater_equal(mature, pa.scalar(week(3).start)))
    reach = pc.and_(reach, pc.less(mature, pa.scalar(run.interval.end)))
    assert memory.index[c.GROUP].to_pylist() == sorted(index.filter(reach)[c.GROUP].to_pylist())
    # Every candidate of a group is there: nothing is sampled.
    counted = np.bincount(forward.ranked.group, minlength=forward.groups)
    assert counted.tolist() == forward.index[c.CANDIDATES].to_pylist()


def test_a_rerun_changes_nothing(installation: Installation) -> None:
    tracker = MemoryTracker()
    first = first_model(installation, tracker)
    run = installation.run(0, 5)
    before = (run.ledger.manifests("evaluate"), run.ledger.versions(), run.ledger.decisions())
    scores = run.lake.read(SCORES)
    again = evaluate.run(run, tracker)
    assert again == first
    assert (
        run.ledger.manifests("evaluate"),
        run.ledger.versions(),
        run.ledger.decisions(),
    ) == before
    assert run.lake.read(SCORES) == scores
    assert tracker.reports[0].content_hash == tracker.reports[-1].content_hash


def test_nothing_trained_passes_the_reason_on(installation: Installation) -> None:
    run = installation.run(2)
    installation.trained(run, reason="warming up: 3 of 8 intervals with groups")
    evaluation = evaluate.run(run, MemoryTracker())
    assert evaluation.verdict.outcome == "reject"
    assert evaluation.verdict.reasons == ("warming up: 3 of 8 intervals with groups",)
    assert evaluation.as_dict()["evaluation"]["baseline"]["ndcg_at_10"] > 0


def test_an_interval_that_was_never_trained_says_so(installation: Installation) -> None:
    with pytest.raises(NotTrained, match="run the stage train"):
        evaluate.run(installation.run(2), MemoryTracker())


class AwayTracker(MemoryTracker):
    """A tracker that does not answer."""

    def check(self) -> None:
        """Never there."""
        raise TrackingUnavailable("MLflow does not answer")


def test_without_mlflow_nothing_is_written_and_a_rerun_heals(installation: Installation) -> None:
    run = installation.run(0, 5)
    installation.trained(run, installation.fit(run, "first"))
    with pytest.raises(TrackingUnavailable):
        evaluate.run(run, AwayTracker())
    assert not run.lake.exists(SCORES)
    assert not run.ledger.versions()
    assert not run.ledger.manifests("evaluate")
    assert evaluate.run(run, MemoryTracker()).verdict.outcome == "promote"


def test_a_registry_that_forgot_the_ledgers_versions_is_found_out(
    installation: Installation,
) -> None:
    first_model(installation, MemoryTracker())
    run = installation.run(5)
    installation.trained(run, installation.fit(run, "boost", 1, 9), parent=1)
    with pytest.raises(RegistryMismatch, match="restore"):
        evaluate.run(run, MemoryTracker())


def test_a_champion_that_lost_its_features_gives_way_to_the_baseline(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    first_model(installation, tracker)
    run = installation.run(5)
    left = tuple(name for name in FEATURES if name != "popularity")
    run.ledger.record(
        Manifest("features", "basket", run.interval, {"groups": 1}, "", details={"features": left})
    )
    monkeypatch.setattr("tests.evaluate.real_groups.FEATURES", left)
    installation.trained(run, installation.fit(run, "compact"), parent=1)
    evaluation = evaluate.run(run, tracker)
    assert evaluation.compared_with == 1
    assert "better than the baseline, the shopper's own" in evaluation.verdict.reasons[0]
    assert evaluation.verdict.reasons[-1] == (
        "the champion, version 1, wants features that the shop no longer has: popularity"
    )
    assert set(evaluation.figures["means"]) == {"baseline", "compact"}


def test_steps_written_without_a_feature_score_nothing(installation: Installation) -> None:
    run = installation.run(5)
    whole = holdouts.memory(run, set(FEATURES))
    step = holdouts.memory_steps(run)[-2]
    run.ledger.record(
        Manifest("features", "basket", step, {"groups": 1}, "", details={"features": FEATURES[:-1]})
    )
    without = holdouts.memory(run, set(FEATURES))
    assert 0 < without.groups < whole.groups
    assert holdouts.memory(run, set(FEATURES[:-1])).groups == whole.groups


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_no_room_is_a_retry_and_no_verdict(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = installation.run(0, 5)
    installation.trained(run, installation.fit(run, "first"))

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("pipelines.evaluate.compare.compare", full)
    with pytest.raises(type(error)):
        evaluate.run(run, MemoryTracker())
    assert run.ledger.manifest("evaluate", "basket", run.interval) is None
