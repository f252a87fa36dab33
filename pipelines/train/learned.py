"""Which challengers may have learned from some groups, by what the ledger says they were given."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pipelines.shared.ledger import Manifest
from pipelines.shared.models.challengers import STAGE, Trained
from pipelines.shared.run import Installation
from pipelines.train.history import NEW_MODELS

MODELS: Final = "models"
"""In the details of a forgetting: content hashes of the challengers that learned from them."""
_FROM_NOTHING: Final = frozenset({"first", "compact"})
"""Strategies that have nothing of the parent."""
_FROM_WINDOW: Final = NEW_MODELS | {"replay_boost"}
"""Strategies that learn from a window of the past."""


@dataclass(frozen=True)
class GroupTime:
    """When a group may be learned."""

    step: datetime
    """Start of the step in which it was formed."""
    mature_at: datetime


def learners(installation: Installation, groups: Collection[GroupTime]) -> frozenset[str]:
    """Content hashes of the challengers that may have learned from some groups, or that continue
    one which did. One too many is better than one too few.

    Args:
        groups: outside the memory holdout, which no model learns.
    """
    ledger, surface = installation.ledger, installation.shop.surface.name
    versions = {each.version: each for each in ledger.versions()}
    learned, known = set[str](), set[str]()
    for manifest in ledger.manifests(STAGE, surface):
        trained = Trained.of(manifest.details)
        since = _window_start(installation, manifest)
        for each in trained.challengers:
            known.add(each.content_hash)
            parent = versions.get(each.parent) if each.parent is not None else None
            continued = parent is not None and each.strategy not in _FROM_NOTHING
            if any(_given(trained, each.strategy, since, group) for group in groups) or (
                continued and parent is not None and parent.content_hash in learned
            ):
                learned.add(each.content_hash)
    # Versions whose training was run again since: nobody knows what they were given.
    return frozenset(learned) | {
        version.content_hash
        for version in versions.values()
        if version.content_hash not in known
        and any(group.mature_at < version.trained_through for group in groups)
    }


def _given(trained: Trained, strategy: str, since: datetime, group: GroupTime) -> bool:
    """Whether a challenger was given a group to learn from."""
    if group.mature_at >= trained.cut:
        return False
    new = trained.trained_from is None or group.mature_at >= trained.trained_from
    return new or (strategy in _FROM_WINDOW and group.step >= since)


def _window_start(installation: Installation, manifest: Manifest) -> datetime:
    """Where the window of a new model began; see `plan.window`."""
    folded = installation.ledger.manifests("features", installation.shop.surface.name)
    end = manifest.interval.end
    ends = [m.interval.end for m in folded if m.interval.end <= end and m.counts["groups"] > 0]
    shop = installation.shop
    return max(ends, default=end) - shop.learning.window_intervals * shop.grid.step


def unlearn(installation: Installation, number: int, content_hash: str) -> str | None:
    """Why a version must be replaced by one that is trained on what is left; None if it need not.

    Args:
        number: the version.
        content_hash: of its model text.
    """
    for each in installation.ledger.forgettings():
        if content_hash in each.details.get(MODELS, ()):
            return f"version {number} learned from a shopper who was forgotten since"
    return None
