"""The stage: select what was not learned yet, train a challenger, save it, record it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, replace
from pathlib import Path

from pipelines.shared.errors import DeclarationError
from pipelines.shared.hashing import content_hash
from pipelines.shared.ledger import Manifest
from pipelines.shared.models import booster
from pipelines.shared.models.booster import ModelCard
from pipelines.shared.models.challengers import STAGE, Challenger, Trained
from pipelines.shared.run import Run
from pipelines.train import drift, history, learned, plan, policy, preselection, strategies
from pipelines.train.data import groups
from pipelines.train.data.groups import Catalogue
from pipelines.train.drift import Health
from pipelines.train.material import Material
from pipelines.train.models import boosting
from pipelines.train.models.parameters import MIN_GROUPS
from pipelines.train.plan import Parent
from pipelines.train.policy import PolicyState
from pipelines.train.run_data import RunData
from pipelines.train.strategies import STRATEGIES, Model
from pipelines.train.trainers.job import Progress, silent


def run(run: Run, progress: Progress = silent) -> Trained:
    """Train the challenger of an interval.

    Without a champion it is a first model, once enough intervals have groups. With one it learns
    what matured since the champion learned; a rejected challenger or a gap loses nothing.

    Raises:
        DeclarationError: a monotone constraint names a feature that the groups do not have.
        CorruptPartition: the parent's model text or a partition is damaged.
        FeatureMismatch: the lake lacks a feature that the ledger lists.
        UnsoundGroups: a label or a value is not one to learn from.
        TurnLost, TurnTaken: it is another run's turn.
    """
    started = time.perf_counter()
    run.require_turn()
    parent = plan.parent(run)
    surface = run.shop.surface.name
    trained = Trained(surface, plan.cut(run), None, parent.version.version if parent else None)
    steps = plan.steps(run)
    if parent is None and len(steps) < (needed := run.shop.learning.warm_up_intervals):
        warming = f"warming up: {len(steps)} of {needed} intervals with groups"
        return _record(run, replace(trained, reason=warming), started)
    if not steps:
        return _record(run, replace(trained, reason="no interval has groups"), started)

    since = parent.version.trained_through if parent else None
    window = steps if parent else plan.window(run, steps)
    selection = groups.select(run, window, since, trained.cut)
    trained = replace(
        trained,
        trained_from=since or window[0].interval.start,
        groups=selection.groups,
        without_relevant=selection.without_relevant,
    )
    if reason := _too_few(trained):
        return _record(run, replace(trained, reason=reason), started)
    data = RunData(run, steps, parent, selection, progress)
    _require_known(run, data.catalogue)
    return _record(run, _train(data, trained), started)


def retrain(run: Run, folder: Path) -> Path:
    """Train on everything that matured before the cut: the reference that costs too much.

    `retrain.txt`, whose path it returns, and its card go to the folder; the ledger is not touched.

    Raises:
        ValueError: there is nothing to learn from.
        CorruptPartition, FeatureMismatch, UnsoundGroups: as for `run`.
    """
    steps = plan.steps(run)
    if not steps:
        raise ValueError(f"no interval up to {run.interval} has groups; run the stages before")
    catalogue = Catalogue.of(steps[-1])
    same = [step for step in steps if Catalogue.of(step) == catalogue]
    selection = groups.select(run, same, None, plan.cut(run))
    data = RunData(run, steps, None, selection)
    if (ready := data.material.new.groups) < MIN_GROUPS:
        raise ValueError(
            f"only {ready} groups matured before {plan.cut(run)}, at least {MIN_GROUPS} are "
            "wanted; choose a later interval"
        )
    model = strategies.fresh(data.material)
    booster.save(folder, "retrain", model.text, _card(data, "retrain", model))
    return folder / "retrain.txt"


def _too_few(trained: Trained) -> str | None:
    since, cut = trained.trained_from, trained.cut
    if trained.groups == 0:
        return f"no new mature groups in [{since:%Y-%m-%dT%H:%MZ}, {cut:%Y-%m-%dT%H:%MZ})"
    if trained.groups < MIN_GROUPS:
        return f"only {trained.groups} new groups, at least {MIN_GROUPS} are wanted: they wait"
    return None


def _require_known(run: Run, catalogue: Catalogue) -> None:
    if unknown := sorted(set(run.shop.learning.monotone) - set(catalogue.features)):
        raise DeclarationError(
            f"learning.monotone of {run.shop.shop} names features that its groups do not have: "
            f"{', '.join(unknown)}; accepted: {', '.join(catalogue.features)}"
        )


def _train(data: RunData, trained: Trained) -> Trained:
    started = time.perf_counter()
    material = data.material
    trained = replace(trained, one_grade=trained.groups - material.new.groups)
    if material.new.groups < MIN_GROUPS:
        reason = f"only {material.new.groups} groups with two grades: they wait"
        return replace(trained, reason=reason)
    if data.parent is None:
        first = _save(data, "first", strategies.fresh(material), started)
        return replace(trained, challengers=(first,))
    health, state = _policy_state(data, data.parent, material)
    choice = policy.choose(state)
    name, notes = preselection.best(choice.names, material)
    challenger = _save(data, name, STRATEGIES[name](material), started)
    return replace(
        trained,
        challengers=(replace(challenger, forced=choice.forced),),
        notes=(*choice.notes, *notes),
        health=health.as_dict() if health else None,
        spent=asdict(policy.cost(choice.names, state)),
        replay=content_hash(data.past.index) if name == "replay_boost" else None,
    )


def _policy_state(
    data: RunData, parent: Parent, material: Material
) -> tuple[Health | None, PolicyState]:
    """The parent's health on the new groups, and the state that the policy asks for."""
    learning, past = data.run.shop.learning, history.read(data.run)
    mismatch = plan.mismatch(parent, data.catalogue, data.codes)
    health, behind, runs_since_alarm, score_ms = None, None, None, 0.0
    if mismatch is None:
        scores = boosting.scores_from_leaves(parent.text, material.leaves)
        health = drift.measure(material.new, scores)
        behind = drift.behind(health, past.healths)
        healths = (*past.healths, health)
        reach = policy.reach(learning)
        runs_since_alarm = drift.runs_since_alarm(healths, learning.drift_alarm, reach)
        score_ms = booster.score_ms(parent.text, material.new.features)
    return health, PolicyState(
        learning=learning,
        gate=data.run.shop.gate,
        mismatch=mismatch,
        trees=parent.card.trees,
        megabytes=parent.megabytes,
        score_ms=score_ms,
        span=data.span,
        behind=behind,
        runs_since_alarm=runs_since_alarm,
        new_groups=material.new.groups,
        window_groups=data.window.groups,
        all_groups=sum(step.counts["groups"] for step in data.steps),
        history=past,
        unlearn=learned.unlearn(data.run, parent.version.version, parent.version.content_hash),
    )


def _save(data: RunData, name: str, model: Model, started: float) -> Challenger:
    """Write a model and its card.

    The name holds the start of its hash: a rerun writes the same file, and one with other data
    or code cannot overwrite a version that is registered.
    """
    run = data.run
    digest = hashlib.sha256(model.text.encode()).hexdigest()
    place = f"models/{run.shop.surface.name}/{run.interval.start:%Y-%m-%dT%H%M%SZ}"
    file = f"{name}-{digest[:12]}"
    booster.save(run.lake.local_root / place, file, model.text, _card(data, name, model))
    return Challenger(
        strategy=name,
        artifact=f"{place}/{file}.txt",
        parent=data.parent.version.version if data.parent else None,
        trained_through=plan.cut(run),
        trees=model.trees,
        content_hash=digest,
        groups=model.groups,
        rows=model.rows,
        seconds=round(time.perf_counter() - started, 3),
    )


def _card(data: RunData, name: str, model: Model) -> ModelCard:
    run = data.run
    return ModelCard(
        features=data.catalogue.features,
        categorical=data.catalogue.categorical,
        vocabulary=data.codes,
        strategy=name,
        parent=data.parent.version.version if data.parent else None,
        trained_through=plan.cut(run).isoformat(),
        interval_start=run.interval.start.isoformat(),
        interval_end=run.interval.end.isoformat(),
        trees=model.trees,
        groups=model.groups,
        params=model.params,
    )


def _record(run: Run, trained: Trained, started: float) -> Trained:
    texts = "".join(challenger.content_hash for challenger in trained.challengers)
    run.ledger.record(
        Manifest(
            STAGE,
            trained.surface,
            run.interval,
            {
                "groups": trained.groups,
                "rows": max((each.rows for each in trained.challengers), default=0),
                "challengers": len(trained.challengers),
            },
            hashlib.sha256(texts.encode()).hexdigest(),
            details=trained.details(),
            seconds=round(time.perf_counter() - started, 3),
        )
    )
    return trained
