"""The stage's entry point."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

from pipelines.evaluate import evaluation as evaluations
from pipelines.evaluate import reporting
from pipelines.evaluate.compare import Result
from pipelines.evaluate.evaluation import Evaluation
from pipelines.evaluate.judgement import Judged, judge
from pipelines.evaluate.report import Tracker
from pipelines.evaluate.tracking.mlflow_tracker import MlflowTracker
from pipelines.shared import columns as c
from pipelines.shared.errors import PermanentError
from pipelines.shared.hashing import content_hash
from pipelines.shared.ledger import Manifest, Version
from pipelines.shared.models import challengers
from pipelines.shared.models.challengers import Challenger, Trained
from pipelines.shared.run import Run

STAGE = "evaluate"


class RegistryMismatch(PermanentError):
    """The registry gave a number that the ledger knows as another model."""


class NotTrained(PermanentError):
    """The interval was never trained."""


def run(run: Run, tracker: Tracker | None = None) -> Evaluation:
    """Compare the interval's challengers with its parent, record the figures, and judge.

    The lake gets `scores/<surface>`, MLflow a run and a version a challenger, the ledger the
    versions and a manifest whose details are `Evaluation.as_dict()`. A metric that fails does
    not fail the stage: the verdict is then `reject`, with the cause (law 8).

    Args:
        run: the interval.
        tracker: default: MLflow at the settings' URI.

    Raises:
        TrackingUnavailable: MLflow does not answer; nothing was decided, a rerun heals.
        CorruptPartition: a file of the lake is damaged.
        NotTrained: training never ran for the interval.
        RegistryMismatch: the registry and the ledger speak of different versions.
    """
    started = time.perf_counter()
    tracker = tracker or MlflowTracker(run.settings.mlflow_uri)
    tracker.check()
    judged = judge(run, _trained(run))
    scores_hash = _store(run, judged.result)
    versions = tracker.record(reporting.report(run, judged))
    _add_versions(run, judged, versions)
    evaluation = _evaluation(run, judged, versions)
    figures = evaluation.figures["groups"]
    run.ledger.record(
        Manifest(
            STAGE,
            run.shop.surface.name,
            run.interval,
            counts={
                "forward_groups": figures["forward_holdout"],
                "memory_groups": figures["memory_holdout"],
                "challengers": len(judged.trained.challengers),
            },
            content_hash=scores_hash,
            details=evaluation.as_dict(),
            seconds=time.perf_counter() - started,
        )
    )
    return evaluation


def _trained(run: Run) -> Trained:
    found = challengers.read(run.ledger, run.shop.surface.name, run.interval)
    if found is None:
        raise NotTrained(
            f"{run.shop.shop}: {run.interval} was never trained; run the stage train for it first"
        )
    return found


def _store(run: Run, result: Result | None) -> str:
    """Replace the interval's scores.

    Returns:
        Hash of their content.
    """
    table = f"scores/{run.shop.surface.name}"
    scores = result.scores if result else None
    if scores is not None:
        run.lake.replace(table, run.interval, scores)
        return content_hash(scores)
    if run.lake.exists(table):
        run.lake.replace(table, run.interval, run.lake.read(table, []).drop_columns([c.INTERVAL]))
    return hashlib.sha256(b"").hexdigest()


def _add_versions(run: Run, judged: Judged, versions: Mapping[str, int]) -> None:
    known = {version.version: version for version in run.ledger.versions()}
    for each in judged.trained.challengers:
        number = versions.get(each.strategy)
        if number is None:
            continue
        standing = known.get(number)
        if standing is not None and standing.content_hash != each.content_hash:
            raise RegistryMismatch(
                f"MLflow registered {each.strategy} of {run.interval} as version {number}, which "
                f"the ledger knows as {standing.strategy} of {standing.interval}: the two were "
                "not restored together; restore MLflow's database from the same time, or start "
                "both anew"
            )
        run.ledger.add_version(_version(run, each, number))


def _version(run: Run, each: Challenger, number: int) -> Version:
    return Version(
        number, run.interval, each.strategy, each.parent, each.trained_through, each.trees,
        each.artifact, each.content_hash,
    )  # fmt: skip


def _evaluation(run: Run, judged: Judged, versions: Mapping[str, int]) -> Evaluation:
    figures = evaluations.figures(
        judged.contest,
        judged.result,
        versions,
        judged.trained.parent,
        max((each.groups for each in judged.trained.challengers), default=0),
        judged.overtaken_by,
    )
    chosen = judged.verdict.challenger
    version = versions.get(chosen) if chosen else None
    return Evaluation(judged.trained.parent, judged.verdict, version, figures)
