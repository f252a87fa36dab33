"""The stage's entry point: holdouts, comparison, gate, report."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.evaluate import compare, gate, report
from pipelines.evaluate.compare import Comparison
from pipelines.evaluate.report import Evaluation
from pipelines.evaluate.tracking.mlflow_tracker import MlflowTracker
from pipelines.evaluate.tracking.tracker import Tracker
from pipelines.shared import columns as c
from pipelines.shared.errors import CorruptPartition, PermanentError, TransientError
from pipelines.shared.hashing import content_hash
from pipelines.shared.ledger import Manifest, Version
from pipelines.shared.models import challengers
from pipelines.shared.models.challengers import Trained
from pipelines.shared.run import Run

if TYPE_CHECKING:
    import sqlalchemy as sa

STAGE = "evaluate"
_log = logging.getLogger(__name__)


class RegistryMismatch(PermanentError):
    """The registry gave a number that the ledger knows as another model."""


class NotTrained(PermanentError):
    """The interval was never trained."""


def run(run: Run, tracker: Tracker | None = None) -> Evaluation:
    """Compare the interval's challengers with its parent, ask the gate, and record both.

    The lake gets `scores/<surface>`, MLflow a run and a version a challenger, the ledger the
    versions and a manifest whose details are `Evaluation.as_dict()`. A metric that fails does
    not fail the stage: the verdict is then `reject`, with the cause (law 8).

    Raises:
        TrackingUnavailable: MLflow does not answer; nothing was decided, a rerun heals.
        CorruptPartition: a file of the lake is damaged.
        NotTrained: training never ran for the interval.
        RegistryMismatch: the registry and the ledger speak of different versions.
        TurnLost, TurnTaken: it is another run's turn; nothing was registered.
    """
    started = time.perf_counter()
    run.require_turn()
    tracker = tracker or MlflowTracker(run.settings.mlflow_uri.get_secret_value())
    tracker.check()
    trained = challengers.read(run.ledger, run.shop.surface.name, run.interval)
    if trained is None:
        raise NotTrained(
            f"{run.shop.shop}: {run.interval} was never trained; run the stage train for it first"
        )
    overtaken_by = _overtaken_by(run)
    comparison = _compare(run, trained)
    verdict = gate.verdict(run.shop.gate, comparison, trained.reason, overtaken_by)
    scores_hash = _store(run, comparison)
    reported = report.report(run, trained, comparison, verdict)
    # Nobody takes the turn meanwhile; of two evaluations at once the second finds the versions
    # of the first.
    with run.ledger.decision_lock() as connection:
        run.require_turn(connection)
        versions = tracker.record(reported)
        _add_versions(run, trained, versions, connection)
        evaluation = report.evaluation(trained, comparison, verdict, versions, overtaken_by)
        manifest = _manifest(run, trained, evaluation, scores_hash)
        seconds = time.perf_counter() - started
        run.ledger.record(replace(manifest, seconds=seconds), connection)
    return evaluation


def _manifest(run: Run, trained: Trained, evaluation: Evaluation, scores_hash: str) -> Manifest:
    groups = evaluation.figures["groups"]
    return Manifest(
        STAGE,
        run.shop.surface.name,
        run.interval,
        counts={
            "forward_groups": groups["forward_holdout"],
            "memory_groups": groups["memory_holdout"],
            "challengers": len(trained.challengers),
        },
        content_hash=scores_hash,
        details=evaluation.as_dict(),
    )


def _overtaken_by(run: Run) -> str | None:
    """The end of the latest decided interval, if that lies beyond this one's.

    A decided interval keeps the answer that it was decided with: a rerun gives the same.
    """
    decisions = run.ledger.decisions()
    for decision in decisions:
        if decision.interval == run.interval:
            end: str | None = decision.evaluation.get("overtaken_by")
            return end
    later = [each.interval.end for each in decisions if each.interval.end >= run.interval.end]
    return f"{max(later):%Y-%m-%dT%H:%M:%SZ}" if later else None


def _compare(run: Run, trained: Trained) -> Comparison:
    """The comparison, or why it failed.

    Raises:
        TransientError, CorruptPartition, OSError, MemoryError: data could not be read, or the
            machine has no room for it; nothing is decided, and a rerun may succeed.
    """
    comparison = Comparison(trained.parent)
    try:
        comparison = compare.prepare(run, trained)
        return compare.compare(run, comparison)
    except (TransientError, CorruptPartition, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - law 8: whatever a metric dies of is a reason
        _log.exception("the comparison failed")
        failure = f"the comparison failed ({type(error).__name__}: {error}); the champion stays"
        return replace(comparison, failure=failure)


def _store(run: Run, comparison: Comparison) -> str:
    """Replace the interval's scores; returns the hash of their content."""
    table, scores = f"scores/{run.shop.surface.name}", comparison.scores
    if scores is not None:
        scores = scores.sort_by([(name, "ascending") for name in ("model", "split", c.GROUP)])
        run.lake.replace(table, run.interval, scores)
        return content_hash(scores)
    if run.lake.exists(table):
        run.lake.replace(table, run.interval, run.lake.read(table, []).drop_columns([c.INTERVAL]))
    return hashlib.sha256(b"").hexdigest()


def _add_versions(
    run: Run, trained: Trained, versions: Mapping[str, int], connection: sa.Connection
) -> None:
    known = {version.version: version for version in run.ledger.versions()}
    for each in trained.challengers:
        number = versions.get(each.strategy)
        if number is None:
            continue
        standing = known.get(number)
        if standing is not None and standing.content_hash != each.content_hash:
            raise RegistryMismatch(
                f"MLflow registered {each.strategy} of {run.interval} as version {number}, which "
                f"the ledger knows as {standing.strategy} of {standing.interval}: the two were "
                "not restored from the same time; restore MLflow's database to the ledger's, or "
                "start both from nothing"
            )
        version = Version(
            number, run.interval, each.strategy, each.parent, each.trained_through, each.trees,
            each.artifact, each.content_hash,
        )  # fmt: skip
        run.ledger.add_version(version, connection)
