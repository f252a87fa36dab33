"""The stage: select what was not learned yet, train challengers, save them, tell the ledger."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pipelines.shared import booster
from pipelines.shared.booster import ModelCard
from pipelines.shared.challengers import STAGE, Challenger, Trained
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run
from pipelines.train import groups, plan, strategies
from pipelines.train.groups import Catalogue, Examples, Selection
from pipelines.train.plan import Parent
from pipelines.train.recipe import MIN_GROUPS
from pipelines.train.strategies import Ground, Grown


@dataclass(frozen=True)
class _Data:
    """What the challengers of one run share."""

    run: Run
    catalogue: Catalogue
    codes: dict[str, dict[str, int]]
    parent: Parent | None

    def ground(self, examples: Examples) -> Ground:
        shop = self.run.shop
        return Ground(
            examples,
            self.catalogue.categorical,
            shop.learning,
            shop.gate,
            self.run.settings.threads,
        )


def run(run: Run) -> Trained:
    """Train the challengers of an interval.

    Without a champion: a first model, once enough intervals have groups. With one: what matured
    since it learned, by continuing it; a rejected challenger or a gap loses nothing.

    Raises:
        CorruptPartition: the parent's model text or a partition is damaged.
        FeatureMismatch: the lake lacks a feature that the ledger lists.
        UnsoundGroups: a label or a value is not one to learn from.
    """
    started = time.perf_counter()
    parent = plan.parent(run)
    surface = run.shop.surface.name
    trained = Trained(surface, plan.cut(run), None, parent.version.version if parent else None)
    steps = plan.steps(run)
    if parent is None and len(steps) < (needed := run.shop.learning.warm_up_intervals):
        reason = f"warming up: {len(steps)} of {needed} intervals with groups"
        return _record(run, replace(trained, reason=reason), started)
    if not steps:
        return _record(run, replace(trained, reason="no interval has groups"), started)

    since = parent.version.trained_through if parent else None
    window = steps if parent else plan.replay(run, steps)
    selection = groups.select(run, window, since, trained.cut)
    trained = replace(
        trained,
        trained_from=since or window[0].interval.start,
        groups=selection.groups,
        without_relevant=selection.without_relevant,
    )
    if little := _too_little(trained):
        return _record(run, replace(trained, reason=little), started)
    catalogue = Catalogue.of(steps[-1])
    data = _Data(run, catalogue, plan.codes(run, catalogue), parent)
    return _record(run, _train(data, trained, steps, selection), started)


def retrain(run: Run, folder: Path) -> Path:
    """Train on everything that matured before the cut: the reference that costs too much.

    Args:
        folder: where `retrain.txt` and its card go. The ledger is not touched.

    Returns:
        The path of the model text.

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
    examples = groups.load(run, selection, catalogue)
    data = _Data(run, catalogue, plan.codes(run, catalogue), None)
    if examples.groups < MIN_GROUPS:
        raise ValueError(
            f"only {examples.groups} groups matured before {plan.cut(run)}, at least {MIN_GROUPS} "
            "are wanted; choose a later interval"
        )
    grown = strategies.fresh(data.ground(examples))
    booster.save(folder, "retrain", grown.text, _card(data, "retrain", grown))
    return folder / "retrain.txt"


def _too_little(trained: Trained) -> str | None:
    begun, cut = trained.trained_from, trained.cut
    if trained.groups == 0:
        return f"no new mature groups in [{begun:%Y-%m-%dT%H:%MZ}, {cut:%Y-%m-%dT%H:%MZ})"
    if trained.groups < MIN_GROUPS:
        return f"only {trained.groups} new groups, at least {MIN_GROUPS} are wanted: they wait"
    return None


def _train(data: _Data, trained: Trained, steps: list[Manifest], selection: Selection) -> Trained:
    run, parent = data.run, data.parent
    if parent is None:
        chosen = plan.Strategies(("first",))
    else:
        chosen = plan.strategies(parent, data.catalogue, data.codes, run.shop.gate)
    made: list[Challenger] = []
    new: Ground | None = None
    for name in chosen.names:
        started = time.perf_counter()
        if name == "compact":
            window = groups.select(run, plan.replay(run, steps), None, trained.cut)
            ground = data.ground(groups.load(run, window, data.catalogue))
        else:
            new = new or data.ground(groups.load(run, selection, data.catalogue))
            ground = new
        if ground.examples.groups < MIN_GROUPS:
            reason = f"only {ground.examples.groups} groups with two grades: they wait"
            return replace(trained, reason=reason, notes=chosen.notes)
        made.append(_save(data, name, _grow(name, parent, ground), trained.cut, started))
    return replace(trained, challengers=tuple(made), notes=chosen.notes)


def _grow(name: str, parent: Parent | None, ground: Ground) -> Grown:
    if parent is None or name == "compact":
        return strategies.fresh(ground)
    continued = {"boost": strategies.boost, "refit_boost": strategies.refit_boost}
    return continued[name](parent.path, ground)


def _save(data: _Data, name: str, grown: Grown, cut: datetime, started: float) -> Challenger:
    """Write a model and its card.

    The name holds the start of its hash: a rerun writes the same file, and one with other data
    or code cannot overwrite a version that is registered.
    """
    run = data.run
    digest = hashlib.sha256(grown.text.encode()).hexdigest()
    place = f"models/{run.shop.surface.name}/{run.interval.start:%Y-%m-%dT%H%M%SZ}"
    file = f"{name}-{digest[:12]}"
    booster.save(run.lake.local_root / place, file, grown.text, _card(data, name, grown))
    return Challenger(
        strategy=name,
        artifact=f"{place}/{file}.txt",
        parent=data.parent.version.version if data.parent else None,
        trained_through=cut,
        trees=grown.trees,
        content_hash=digest,
        groups=grown.groups,
        rows=grown.rows,
        seconds=round(time.perf_counter() - started, 3),
    )


def _card(data: _Data, name: str, grown: Grown) -> ModelCard:
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
        trees=grown.trees,
        groups=grown.groups,
        params=grown.params,
        learning_curve=grown.curve,
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
