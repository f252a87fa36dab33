"""From what was trained to a verdict: the contest is set up, held, and put before the gate."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pipelines.evaluate import compare as contests
from pipelines.evaluate import gate, holdouts
from pipelines.evaluate.compare import Contender, Contest, Result
from pipelines.evaluate.gate import Case, Verdict
from pipelines.shared import columns as c
from pipelines.shared.errors import CorruptPartition, TransientError
from pipelines.shared.models import booster
from pipelines.shared.models.challengers import Trained
from pipelines.shared.run import Run

ITEMS = "state/items"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """What came out, before anything is written."""

    trained: Trained
    contest: Contest | None
    result: Result | None
    verdict: Verdict
    overtaken_by: str | None


def judge(run: Run, trained: Trained) -> Judged:
    """Hold the contest and ask the gate.

    Raises:
        TransientError, CorruptPartition: data could not be read; nothing is decided.
    """
    overtaken = _overtaken(run)
    contest: Contest | None = None
    result: Result | None = None
    refusal = trained.reason if not trained.challengers else None
    try:
        contest = _contest(run, trained)
        result = contests.hold(contest)
    except (TransientError, CorruptPartition):
        raise
    except Exception as error:  # noqa: BLE001 - law 8: whatever a metric dies of is a reason
        _log.exception("the comparison failed")
        refusal = f"the comparison failed ({type(error).__name__}: {error}); the champion stays"
    if overtaken is not None:
        refusal = (
            f"the later interval that ends {overtaken} was decided already; replaying history "
            "never dethrones a newer champion"
        )
    parent = trained.parent
    case = Case(
        against="the baseline, the shopper's own purchase counts"
        if parent is None
        else f"the champion, version {parent}",
        first=parent is None,
        trials=result.trials if result else (),
        refusal=refusal,
    )
    return Judged(trained, contest, result, gate.judge(run.shop.gate, case), overtaken)


def _overtaken(run: Run) -> str | None:
    """The end of the latest decided interval, if that lies beyond this one's.

    Once an interval is decided, what it was told then stands: a rerun says the same.
    """
    decided = run.ledger.decisions()
    for decision in decided:
        if decision.interval == run.interval:
            told: str | None = decision.evaluation.get("overtaken_by")
            return told
    later = [each.interval.end for each in decided if each.interval.end >= run.interval.end]
    return f"{max(later):%Y-%m-%dT%H:%M:%SZ}" if later else None


def _contest(run: Run, trained: Trained) -> Contest:
    champion = None
    if trained.parent is not None:
        version = run.ledger.version(trained.parent)
        path = run.lake.local_root / version.artifact
        champion = Contender(contests.CHAMPION, path, version.trained_through, version.trees)
    root = run.lake.local_root
    rivals = tuple(
        Contender(
            each.strategy, root / each.artifact, each.trained_through, each.trees, each.forced
        )
        for each in trained.challengers
    )
    wanted = {contests.BASELINE_FEATURE}
    for contender in [*rivals, *([champion] if champion else [])]:
        wanted |= set(booster.card(contender.model).features)
    return Contest(
        interval=run.interval,
        champion=champion,
        challengers=rivals,
        holdouts=(holdouts.forward(run, trained.cut, wanted), holdouts.memory(run, wanted)),
        catalogue=_catalogue(run),
        confidence=run.shop.gate.confidence,
        threads=run.settings.threads,
    )


def _catalogue(run: Run) -> int:
    """How many items the shop knew at the interval's end; 0 where that was never written."""
    if not run.lake.exists(ITEMS):
        return 0
    return int(run.lake.read(ITEMS, run.steps[-1:], [c.ITEM]).num_rows)
