"""The report: what is stored and compared with earlier reports keeps its exact form."""

from __future__ import annotations

from dataclasses import replace

from pipelines.evaluate import report
from pipelines.evaluate.bootstrap import Gain
from pipelines.evaluate.compare import Comparison, Contender, PairedGain
from pipelines.evaluate.gate import Verdict
from pipelines.shared.models.challengers import Trained
from pipelines.shared.run import Run
from tests.evaluate.real_groups import WEEK, Installation

FIGURES = {
    "baseline": {"forward": {"ndcg_at_10": 0.125, "mrr": 0.25}},
    "champion": {"forward": {"ndcg_at_10": 0.25, "mrr": 0.375}},
    "boost": {
        "forward": {"ndcg_at_10": 0.26, "mrr": float("nan")},
        "memory": {"ndcg_at_10": 0.24},
    },
}


def reported(installation: Installation) -> tuple[Run, Trained, Comparison, Verdict]:
    """A comparison by hand: its figures are written down, not measured."""
    run = installation.run(
        5, confidence=0.9, memory_margin=0.01, min_groups=50, max_trees=500, max_megabytes=20.0,
        max_score_ms=50.0, compact_margin=0.005,
    )  # fmt: skip
    cut = run.interval.end - 3 * WEEK / 7
    challenger = replace(installation.fit(run, "boost", 1, 2), content_hash="b" * 64, groups=7)
    boost = Contender(
        "boost",
        run.lake.local_root / challenger.artifact,
        cut,
        120,
        megabytes=0.5,
        forward=PairedGain(300, 120, 0.26, Gain(0.01, 0.004, 0.016)),
        memory=PairedGain(200, 90, 0.24, Gain(0.0, -0.006, 0.006)),
    )
    comparison = Comparison(1, challengers=(boost,), figures=FIGURES)  # type: ignore[arg-type]
    verdict = Verdict("promote", "boost", ("better than the champion", "120 trees"))
    return run, Trained("basket", cut, None, 1, (challenger,)), comparison, verdict


def test_a_rerun_by_later_code_still_reports_the_same(installation: Installation) -> None:
    """MLflow keeps this hash: another one for the same figures records every interval again."""
    given = report.report(*reported(installation))
    assert given.content_hash == (
        "8584845346e0892f1475afdf30a6e9051375f2d4311ab3f3106b673278044502"
    )
    assert list(given.metrics.items()) == [
        ("ndcg_at_10/baseline", 0.125), ("mrr/baseline", 0.25),
        ("ndcg_at_10/champion", 0.25), ("mrr/champion", 0.375),
        ("ndcg_at_10/boost", 0.26), ("memory_ndcg_at_10/boost", 0.24),
        ("ndcg_at_10/challenger", 0.26),
        ("gain_mean", 0.01), ("gain_low", 0.004), ("gain_high", 0.016),
        ("memory_gain_mean", 0.0), ("memory_gain_low", -0.006), ("memory_gain_high", 0.006),
    ]  # fmt: skip
    [model] = given.models
    assert model.metrics == {
        "trees": 120.0, "megabytes": 0.5, "ndcg_at_10": 0.26, "memory_ndcg_at_10": 0.24,
        "gain_mean": 0.01, "gain_low": 0.004, "gain_high": 0.016,
        "memory_gain_mean": 0.0, "memory_gain_low": -0.006, "memory_gain_high": 0.006,
    }  # fmt: skip


def test_the_ledger_keeps_an_evaluation_in_this_form(installation: Installation) -> None:
    _, trained, comparison, verdict = reported(installation)
    kept = report.evaluation(trained, comparison, verdict, {"boost": 4}, "2017-03-06T00:00:00Z")
    assert kept.as_dict() == {
        "compared_with": 1,
        "verdict": {
            "outcome": "promote",
            "challenger": "boost",
            "reasons": ["better than the champion", "120 trees"],
            "version": 4,
        },
        "evaluation": {
            "champion": {"version": 1, "ndcg_at_10": 0.25},
            "baseline": {"ndcg_at_10": 0.125},
            "challengers": [
                {"version": 4, "strategy": "boost", "parent": 1, "trees": 120, "ndcg_at_10": 0.26}
            ],
            "gain": {"mean": 0.01, "low": 0.004, "high": 0.016},
            "memory_gain": {"mean": 0.0, "low": -0.006, "high": 0.006},
            "groups": {"trained": 7, "forward_holdout": 0, "memory_holdout": 0},
            "candidate_recall": None,
            "means": {
                "baseline": {"forward": {"ndcg_at_10": 0.125, "mrr": 0.25}},
                "champion": {"forward": {"ndcg_at_10": 0.25, "mrr": 0.375}},
                "boost": {
                    "forward": {"ndcg_at_10": 0.26, "mrr": None},
                    "memory": {"ndcg_at_10": 0.24},
                },
            },
            "overtaken_by": "2017-03-06T00:00:00Z",
        },
    }
