"""The stage's entry points."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from typing import Any

from pipelines.promote.registry import MlflowRegistry, Registry, StoredVersions
from pipelines.shared.errors import PermanentError
from pipelines.shared.ledger import Decision, Manifest, Outcome, champion_of
from pipelines.shared.run import Run

STAGE = "promote"


class NotEvaluated(PermanentError):
    """The interval was never evaluated."""


@dataclass(frozen=True)
class Decided:
    """The decision on an interval, made now or by an earlier run of it."""

    outcome: Outcome
    reasons: tuple[str, ...]
    promoted: int | None
    """The version that this decision made champion."""
    champion: int | None
    """The champion now; a later interval may have chosen it."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return {
            "outcome": self.outcome,
            "reasons": list(self.reasons),
            "promoted": self.promoted,
            "champion": self.champion,
        }


def promote(run: Run, registry: Registry | None = None) -> Decided:
    """Follow the evaluation's verdict: make its challenger champion, if that still holds.

    Under the surface's lock: an interval that was decided stays as it was decided; a promotion
    becomes a rejection, with the reason, where a later interval was decided meanwhile or the
    champion is no longer the one that was compared (law 7). Then the alias follows the ledger.

    Args:
        run: the interval.
        registry: default: MLflow at the settings' URI.

    Raises:
        NotEvaluated: the interval has no evaluation.
        TurnLost, TurnTaken: it is another run's turn; nothing was decided.
        IntervalOverlaps: the interval overlaps a decided one; nothing was decided.
        TrackingUnavailable: the decision stands, but MLflow does not show it; a rerun heals.
    """
    return _decide(run, _proposal(run), registry)


def reject(run: Run, registry: Registry | None = None) -> Decided:
    """Record that the interval's challengers are rejected; the champion stays.

    Args and errors: see `promote`.
    """
    proposal = _proposal(run)
    if proposal.outcome == "promote":
        reasons = ("rejected, though the gate would promote it", *proposal.reasons)
        proposal = replace(proposal, outcome="reject", promoted=None, reasons=reasons)
    return _decide(run, proposal, registry)


def _proposal(run: Run) -> Decision:
    """The decision that the evaluation proposes."""
    manifest = run.ledger.manifest("evaluate", run.shop.surface.name, run.interval)
    if manifest is None:
        raise NotEvaluated(
            f"{run.shop.shop}: {run.interval} was never evaluated; run the stage evaluate first"
        )
    verdict = manifest.details["verdict"]
    promotes = verdict["outcome"] == "promote" and verdict["version"] is not None
    return Decision(
        interval=run.interval,
        outcome="promote" if promotes else "reject",
        compared_with=manifest.details["compared_with"],
        promoted=verdict["version"] if promotes else None,
        reasons=tuple(verdict["reasons"]),
        evaluation=manifest.details["evaluation"],
    )


def settle(proposal: Decision, decided: list[Decision]) -> Decision:
    """The decision that a proposal leads to, given those that stand (law 7): a pure function.

    Returns:
        The decision that the interval already has; else the proposal, or its rejection.
    """
    for standing in decided:
        if standing.interval == proposal.interval:
            return standing
    if proposal.outcome != "promote":
        return proposal
    later = [each.interval.end for each in decided if each.interval.end >= proposal.interval.end]
    if later:
        end = f"{max(later):%Y-%m-%dT%H:%M:%SZ}"
        return _rejected(
            proposal,
            f"the later interval that ends {end} was decided already; replaying history never "
            "dethrones a newer champion",
            {"overtaken_by": end},
        )
    champion = champion_of(decided)
    if champion != proposal.compared_with:
        return _rejected(
            proposal,
            f"the champion is {_named(champion)} now, and the comparison was with "
            f"{_named(proposal.compared_with)}; the next interval compares with the new one",
            {},
        )
    return proposal


def _rejected(proposal: Decision, reason: str, figures: dict[str, Any]) -> Decision:
    return replace(
        proposal,
        outcome="reject",
        promoted=None,
        reasons=(reason, *proposal.reasons),
        evaluation={**proposal.evaluation, **figures},
    )


def _named(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _decide(run: Run, proposal: Decision, registry: Registry | None) -> Decided:
    started = time.perf_counter()
    surface = run.shop.surface.name
    if registry is None:
        uri = run.settings.mlflow_uri.get_secret_value()
        stored = StoredVersions(run.ledger, run.lake.local_root)
        registry = MlflowRegistry(uri, run.shop.shop, surface, stored)
    with run.ledger.decision_lock() as connection:
        run.require_turn(connection)
        run.ledger.turns.require_apart(run.interval, connection)
        known = run.ledger.decisions(connection)
        decision = settle(proposal, known)
        if decision not in known:
            run.ledger.decide(decision, connection)
    champion = _synchronise(run, registry)
    versions = {
        each["strategy"]: each["version"]
        for each in decision.evaluation.get("challengers", [])
        if each.get("version") is not None
    }
    registry.mark(decision, versions)
    _record(run, decision, started)
    return Decided(decision.outcome, decision.reasons, decision.promoted, champion)


def _synchronise(run: Run, registry: Registry) -> int | None:
    """Make the registry's alias follow the ledger.

    Under the lock, so that of two promotions the one that reads later also writes later.

    Returns:
        The champion.
    """
    with run.ledger.decision_lock() as connection:
        champion = champion_of(run.ledger.decisions(connection))
        registry.follow(champion)
    return champion


def _record(run: Run, decision: Decision, started: float) -> None:
    details = {"outcome": decision.outcome, "promoted": decision.promoted}
    digest = hashlib.sha256(json.dumps([details, list(decision.reasons)]).encode()).hexdigest()
    run.ledger.record(
        Manifest(
            STAGE,
            run.shop.surface.name,
            run.interval,
            counts={"promoted": int(decision.promoted is not None)},
            content_hash=digest,
            details=details,
            seconds=round(time.perf_counter() - started, 3),
        )
    )
