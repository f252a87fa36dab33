"""Law 6: a parent is named by the ledger, by version number; it is never the latest file."""

from __future__ import annotations

from pipelines import train
from pipelines.shared.models import booster
from pipelines.train import plan
from tests.train import conftest as training
from tests.train.baskets import Installation

real_baskets, real_champion = training.real_baskets, training.real_champion
started = training.started


def test_a_rerun_after_later_promotions_has_the_same_parent(started: Installation) -> None:
    trained = train.run(started.run(4))
    texts = [started.text(each) for each in trained.challengers]
    started.promote(4, trained.challengers[0])
    started.promote(5, train.run(started.run(5)).challengers[0])
    assert started.any.ledger.champion() == 3

    again = train.run(started.run(4))
    assert again.details() == trained.details()
    assert [started.text(each) for each in again.challengers] == texts
    assert {each.parent for each in again.challengers} == {1}


def test_the_parent_is_the_promoted_version_and_not_the_newest(started: Installation) -> None:
    started.decide(4, train.run(started.run(4)).challengers[0], promoted=False)
    newest = started.any.lake.local_root / "models" / "basket" / "2017-02-13T000000Z"
    booster.save(newest, "boost", "not a model", booster.card(plan.parent(started.run(5)).path))
    trained = train.run(started.run(5))
    assert trained.parent == 1
    assert trained.challengers
    for challenger in trained.challengers:
        assert challenger.parent == 1
        card = booster.card(started.any.lake.local_root / challenger.artifact)
        assert card.parent == 1


def test_an_interval_before_any_promotion_has_no_parent(started: Installation) -> None:
    assert plan.parent(started.run(3)) is None
    assert train.run(started.run(3)).challengers[0].strategy == "first"
    assert plan.parent(started.run(4)) is not None


def test_a_challenger_holds_the_structure_of_its_parents_trees(started: Installation) -> None:
    parent = plan.parent(started.run(4))
    assert parent is not None
    moved = started.text(train.run(started.run(4)).challengers[0])
    own, kept = (_structure(text) for text in (moved, parent.path.read_text()))
    assert own[: len(kept)] == kept
    assert len(own) > len(kept)


def _structure(text: str) -> list[list[str]]:
    """The splits of every tree, without the leaves' values."""
    wanted = ("split_feature=", "threshold=", "left_child=", "right_child=", "cat_threshold=")
    trees = text.split("end of trees")[0].split("\nTree=")[1:]
    return [[line for line in tree.splitlines() if line.startswith(wanted)] for tree in trees]
