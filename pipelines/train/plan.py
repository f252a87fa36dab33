"""What a run trains on: which parent it continues, and which steps have groups for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from pipelines.shared.ledger import Manifest, Version
from pipelines.shared.models import booster
from pipelines.shared.models.booster import ModelCard
from pipelines.shared.run import Run
from pipelines.train.data.groups import Catalogue


@dataclass(frozen=True)
class Parent:
    """The champion that challengers continue from (law 6)."""

    version: Version
    path: Path
    card: ModelCard

    @cached_property
    def text(self) -> str:
        """The model text."""
        return self.path.read_text(encoding="utf-8")

    @property
    def megabytes(self) -> float:
        """Size of the model text."""
        return self.path.stat().st_size / 1e6


def cut(run: Run) -> datetime:
    """Groups that matured before it may be learned; those from it on are the forward holdout."""
    return run.interval.end - timedelta(days=run.shop.learning.holdout_days)


def steps(run: Run) -> list[Manifest]:
    """The features stage's manifests of steps with groups, up to the run's end, oldest first."""
    return [
        manifest
        for manifest in run.ledger.manifests("features", run.shop.surface.name)
        if manifest.interval.end <= run.interval.end and manifest.counts["groups"] > 0
    ]


def window(run: Run, known: list[Manifest]) -> list[Manifest]:
    """The bounded window of a first or compacted model: the known `steps` with today's features."""
    since = known[-1].interval.end - run.shop.learning.window_intervals * run.shop.grid.step
    today = Catalogue.of(known[-1])
    return [step for step in known if step.interval.start >= since and Catalogue.of(step) == today]


def parent(run: Run) -> Parent | None:
    """The champion as decided by intervals that ended before the run's began, by version number.

    Raises:
        CorruptPartition: its model is gone or is not the one that was registered.
    """
    number = run.ledger.champion(before=run.interval.start)
    if number is None:
        return None
    version = run.ledger.version(number)
    path = run.lake.local_root / version.artifact
    booster.read(path, version.content_hash)
    return Parent(version, path, booster.card(path))


def mismatch(parent: Parent, catalogue: Catalogue, codes: dict[str, dict[str, int]]) -> str | None:
    """Why the parent's trees would misread today's groups; None if they do not."""
    card, number = parent.card, parent.version.version
    if card.features != catalogue.features:
        lost = sorted(set(card.features) - set(catalogue.features))
        new = sorted(set(catalogue.features) - set(card.features))
        changes = [f"without {', '.join(lost)}"] if lost else []
        changes += [f"with {', '.join(new)}"] if new else []
        return f"version {number} has other features: today's are " + (
            " and ".join(changes) or "in another order"
        )
    if card.categorical != catalogue.categorical:
        return f"version {number} takes other features as categorical"
    for name in card.categorical:
        known = codes.get(name, {})
        if changed := [
            value
            for value, code in card.vocabulary.get(name, {}).items()
            if known.get(value) != code
        ]:
            return f"the codes of {name} that version {number} knows have changed: {changed[0]!r}"
    return None
