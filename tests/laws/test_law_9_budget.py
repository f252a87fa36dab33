"""Law 9: the model stays bounded; what would pass a budget is compacted instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import train
from pipelines.shared.models.challengers import Trained
from pipelines.train.models import parameters
from tests.train import conftest as training
from tests.train.baskets import Installation

pytestmark = pytest.mark.slow

real_baskets, real_champion = training.real_baskets, training.real_champion
install = training.install
Trials = Callable[..., Trained]


@pytest.fixture
def second(tmp_path: Path, real_champion: Path) -> Trials:
    """Train the week after a first model of 100 trees, with a changed gate."""
    return lambda **gate: train.run(
        Installation.at(tmp_path / "shop", real_champion, **gate).run(4)
    )


def _strategies(trained: Trained) -> list[str]:
    return [each.strategy for each in trained.challengers]


def test_within_the_budget_the_parent_is_continued(second: Trials) -> None:
    trained = second(max_trees=103)
    assert _strategies(trained) == ["refit_boost"]
    assert [each.trees for each in trained.challengers] == [103]
    assert trained.notes == ()
    assert not trained.challengers[0].forced


@pytest.mark.parametrize("budget", [102, 30])
def test_what_would_pass_the_trees_is_compacted_and_must_only_not_be_worse(
    second: Trials, budget: int
) -> None:
    trained = second(max_trees=budget)
    assert _strategies(trained) == ["compact"]
    [note] = trained.notes
    assert "compact instead of refit_boost" in note
    assert f"100 + 3 trees would pass the budget of {budget}" in note
    compacted = trained.challengers[0]
    assert (compacted.trees, compacted.parent) == (min(parameters.COMPACT_ROUNDS, budget), 1)
    assert compacted.forced
    assert compacted.trained_through == trained.cut
    # The window holds what the parent had learned, and the new groups.
    assert compacted.groups > trained.groups


def test_what_would_score_too_slowly_is_compacted(second: Trials) -> None:
    trained = second(max_score_ms=1e-3)
    assert _strategies(trained) == ["compact"]
    assert "scoring would take longer than the budget of 0.0 ms" in trained.notes[0]
    assert trained.challengers[0].forced


def test_a_model_never_passes_the_bytes(install: Callable[..., Installation]) -> None:
    shop = install(warm_up_intervals=4, max_megabytes=0.05)
    first = train.run(shop.run(0, 4)).challengers[0]
    shop.promote(0, first, 4)
    trained = train.run(shop.run(4))
    assert _strategies(trained) == ["compact"]
    assert "MB would pass the budget of 0.1 MB" in trained.notes[0]
    for challenger in (first, *trained.challengers):
        assert len(shop.text(challenger).encode()) <= 50_000
        assert challenger.trees >= 1
