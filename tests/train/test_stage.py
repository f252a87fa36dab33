"""The stage: what is learned when, what is not, and that a rerun is the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines import train
from pipelines.shared import columns as c
from pipelines.shared.errors import CorruptPartition, DeclarationError
from pipelines.shared.models import booster, challengers
from pipelines.shared.models.challengers import Trained
from pipelines.train import drift, plan
from pipelines.train.data import groups
from pipelines.train.data.groups import Catalogue
from pipelines.train.models import boosting
from tests.train.baskets import CATEGORICAL, FEATURES, Installation, interval

pytestmark = pytest.mark.slow

HOLDOUT = timedelta(days=3)


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The ids of the groups of every load, in the order of the loads."""
    seen: list[set[str]] = []
    load = groups.load

    def noting(*args: object) -> groups.Examples:
        examples = load(*args)  # type: ignore[arg-type]
        seen.append(set(examples.ids.to_pylist()))
        return examples

    monkeypatch.setattr(groups, "load", noting)
    return seen


def test_before_enough_intervals_nothing_is_trained(shop: Installation) -> None:
    trained = train.run(shop.run(2))
    assert trained.challengers == ()
    assert trained.reason == "warming up: 3 of 4 intervals with groups"


def test_the_first_model_learns_what_matured_before_the_cut(
    shop: Installation, learned: list[set[str]]
) -> None:
    trained = train.run(shop.run(0, 4))
    assert [each.strategy for each in trained.challengers] == ["first"]
    assert trained.cut == interval(3).end - HOLDOUT
    assert learned == [shop.teaching(interval(0).start, trained.cut)]
    assert trained.groups == len(learned[0])
    known = shop.index(interval(0).start, trained.cut).filter(~pc.field(c.MEMORY))
    assert trained.without_relevant == known.num_rows - trained.groups


def test_challengers_learn_only_what_the_parent_has_not_seen(
    started: Installation, learned: list[set[str]]
) -> None:
    trained = train.run(started.run(4))
    assert [each.strategy for each in trained.challengers] == ["refit_boost"]
    assert trained.trained_from == started.first.cut
    assert learned == [started.teaching(started.first.cut, trained.cut)]
    assert {each.trained_through for each in trained.challengers} == {trained.cut}


def test_what_a_rejected_or_missing_run_left_is_learned_by_the_next(
    started: Installation, learned: list[set[str]]
) -> None:
    rejected = train.run(started.run(4))
    started.decide(4, rejected.challengers[0], promoted=False)
    later = train.run(started.run(6))
    assert (later.parent, later.trained_from) == (1, started.first.cut)
    assert learned[0] < learned[1] == started.teaching(started.first.cut, later.cut)


def test_after_a_promotion_nothing_is_learned_twice_and_nothing_is_skipped(
    started: Installation, learned: list[set[str]]
) -> None:
    for week in (4, 5, 6):
        started.promote(week, train.run(started.run(week)).challengers[0])
    assert sum(map(len, learned)) == len(set().union(*learned))
    cut = interval(6).end - HOLDOUT
    assert set().union(*learned) == started.teaching(started.first.cut, cut)


def test_the_memory_holdout_is_never_learned(
    shop: Installation, started: Installation, learned: list[set[str]], tmp_path: Path
) -> None:
    train.run(shop.run(0, 4))
    train.run(started.run(4))
    train.retrain(started.run(5), tmp_path / "reference")
    everything = shop.index(interval(0).start, interval(12).end)
    held = set(everything.filter(pc.field(c.MEMORY))[c.GROUP].to_pylist())
    assert held
    assert len(learned) == 3
    assert not held & set().union(*learned)


def _empty(shop: Installation, week: int) -> None:
    """Leave a week without groups."""
    for table in ("groups/basket", "group_index/basket"):
        stored = shop.any.lake.read(table, [interval(week)]).drop_columns([c.INTERVAL])
        shop.any.lake.replace(table, interval(week), stored.schema.empty_table())
    shop.record(week)


def test_an_interval_without_groups_learns_what_was_left_before_it(started: Installation) -> None:
    _empty(started, 4)
    trained = train.run(started.run(4))
    assert trained.groups == len(started.teaching(started.first.cut, interval(3).end))
    started.promote(4, trained.challengers[0])
    again = train.run(started.run(5))
    assert (again.parent, again.trained_from) == (2, trained.cut)


def test_no_new_groups_is_a_reason(started: Installation) -> None:
    _empty(started, 3)
    _empty(started, 4)
    trained = train.run(started.run(4))
    assert trained.challengers == ()
    assert trained.reason == "no new mature groups in [2017-02-03T00:00Z, 2017-02-10T00:00Z)"
    manifest = started.any.ledger.manifest("train", "basket", interval(4))
    assert manifest is not None
    assert manifest.counts == {"groups": 0, "rows": 0, "challengers": 0}


def test_too_few_new_groups_wait(started: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.train.stage.MIN_GROUPS", 10_000)
    trained = train.run(started.run(4))
    assert trained.challengers == ()
    assert trained.reason == (
        f"only {trained.groups} new groups, at least 10000 are wanted: they wait"
    )


def test_a_rerun_writes_the_same_bytes_and_tells_the_ledger_nothing_new(
    started: Installation,
) -> None:
    train.run(started.run(4))
    models = started.any.lake.local_root / "models"
    before = {path: path.read_bytes() for path in models.rglob("*") if path.is_file()}
    count = _rows(started)
    train.run(started.run(4))
    assert {path: path.read_bytes() for path in models.rglob("*") if path.is_file()} == before
    assert _rows(started) == count


def _rows(shop: Installation) -> int:
    import sqlalchemy as sa

    engine = sa.create_engine(shop.settings.ledger_url.get_secret_value())
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("select count(*) from freshrank_manifests").scalar())


def test_evaluation_reads_from_the_ledger_what_was_trained(shop: Installation) -> None:
    trained = train.run(shop.run(0, 4))
    recorded = challengers.read(shop.any.ledger, "basket", interval(0, 4))
    assert recorded is not None
    assert recorded.details() == trained.details()
    assert Trained.of(json.loads(json.dumps(trained.as_dict()))) == trained
    assert challengers.read(shop.any.ledger, "basket", interval(7)) is None


def test_the_card_says_what_the_model_needs(started: Installation) -> None:
    for challenger in train.run(started.run(4)).challengers:
        card = booster.card(started.any.lake.local_root / challenger.artifact)
        assert (card.features, card.categorical) == (FEATURES, CATEGORICAL)
        assert (card.parent, card.strategy) == (1, challenger.strategy)
        assert card.trees == challenger.trees == 100 + started.any.shop.learning.refit_rounds
        codes = card.vocabulary["item_category"]
        assert sorted(codes.values()) == list(range(len(codes)))


def test_a_model_that_an_earlier_version_boosted_is_continued(started: Installation) -> None:
    """It stopped early by a curve, which its card holds, and the ledger names its strategy."""
    ledger, key = started.any.ledger, ("train", "basket", interval(0, 4))
    manifest = ledger.manifest(*key)
    assert manifest is not None
    [challenger] = manifest.details["challengers"]
    details = manifest.details | {"challengers": [challenger | {"strategy": "boost"}]}
    ledger.record(replace(manifest, details=details))
    path = started.any.lake.local_root / challenger["artifact"]
    stored = path.with_suffix(".json")
    card = json.loads(stored.read_text()) | {"strategy": "boost", "learning_curve": [0.2, 0.3]}
    stored.write_text(json.dumps(card))
    trained = train.run(started.run(4))
    assert (trained.parent, trained.challengers[0].strategy) == (1, "refit_boost")


def test_other_features_than_the_parents_want_a_new_model(started: Installation) -> None:
    run = started.run(5)
    for week in (4, 5):
        rows = run.lake.read("groups/basket", [interval(week)]).drop_columns([c.INTERVAL])
        rows = rows.select([name for name in rows.column_names if name != "season"])
        season = pa.array(np.full(rows.num_rows, week), pa.float32())
        run.lake.replace("groups/basket", interval(week), rows.append_column("season", season))
        started.record(week, (*FEATURES, "season"))
    trained = train.run(run)
    assert [each.strategy for each in trained.challengers] == ["compact"]
    [note] = trained.notes
    assert "compact" in note
    assert "version 1 has other features: today's are with season" in note
    card = booster.card(run.lake.local_root / trained.challengers[0].artifact)
    assert card.features == (*FEATURES, "season")


def test_a_renumbered_vocabulary_is_not_misread(started: Installation) -> None:
    run = started.run(4)
    codes = run.lake.read("state/vocabulary").drop_columns([c.INTERVAL])
    renumbered = codes.set_column(
        codes.schema.get_field_index("code"),
        "code",
        pc.subtract(pc.max(codes["code"]), codes["code"]),
    )
    run.lake.replace("state/vocabulary", interval(0), renumbered)
    trained = train.run(run)
    assert [each.strategy for each in trained.challengers] == ["compact"]
    assert "the codes of item_category that version 1 knows have changed" in trained.notes[0]


def test_a_parent_that_is_gone_or_changed_is_one_clear_error(started: Installation) -> None:
    trained = started.first
    path = started.any.lake.local_root / trained.challengers[0].artifact
    path.write_text(path.read_text() + "\n")
    with pytest.raises(CorruptPartition, match="not the one that was trained"):
        train.run(started.run(4))
    path.unlink()
    with pytest.raises(CorruptPartition, match="is gone"):
        train.run(started.run(4))


def test_the_reference_learns_everything_and_leaves_no_trace(
    shop: Installation, tmp_path: Path, learned: list[set[str]]
) -> None:
    path = train.retrain(shop.run(8), tmp_path / "reference")
    assert learned == [shop.teaching(interval(0).start, interval(8).end - HOLDOUT)]
    assert booster.card(path).strategy == "retrain"
    assert shop.any.ledger.manifests("train") == []
    assert not (shop.any.lake.local_root / "models").exists()


def test_a_first_model_ranks_better_than_how_often_one_bought(
    install: Callable[..., Installation],
) -> None:
    shop = install(warm_up_intervals=8)
    trained = train.run(shop.run(0, 8))
    run = shop.run(8, 5)
    later = groups.select(run, plan.steps(run), interval(8).start, interval(12).end)
    unseen = groups.load(run, later, Catalogue(FEATURES, CATEGORICAL))
    model = boosting.scores(shop.text(trained.challengers[0]), unseen.features, threads=2)
    habit = unseen.features["own_count"].to_numpy().astype(float)
    assert drift.ndcg(unseen, model).mean() > drift.ndcg(unseen, habit).mean()


def test_a_constraint_on_an_unknown_feature_is_named(started: Installation) -> None:
    changed = Installation(started.settings, started.changed | {"monotone": {"weather": 1}})
    with pytest.raises(DeclarationError, match=r"weather; accepted: own_share"):
        train.run(changed.run(4))


def test_replay_learns_the_past_again_and_its_sample_is_named(
    started: Installation, learned: list[set[str]]
) -> None:
    monotone = {"monotone": {"own_share": 1}, "replay_ratio": 0.5}
    shop = Installation(started.settings, started.changed | monotone)
    trained = train.run(shop.run(4))
    assert [each.strategy for each in trained.challengers] == ["replay_boost"]
    new, past = learned
    assert new == shop.teaching(started.first.cut, trained.cut)
    assert past <= shop.teaching(interval(0).start, started.first.cut)
    assert len(past) == round(0.5 * len(new))
    assert trained.replay is not None
    assert train.run(shop.run(4)).replay == trained.replay


@pytest.mark.parametrize(("share", "refits"), [(1.0, 3), (1e-6, 4)])
def test_a_new_model_comes_when_it_is_due_and_earlier_when_it_is_paid_for(
    started: Installation, share: float, refits: int
) -> None:
    shop = Installation(started.settings, started.changed | {"cost_share": share})
    seen = []
    for week in range(4, 10):
        trained = train.run(shop.run(week))
        seen.append(trained.challengers[0].strategy)
        shop.promote(week, trained.challengers[0])
    assert seen == [*["refit_boost"] * refits, "blend", *["refit_boost"] * (5 - refits)]
    assert not trained.challengers[0].forced


def test_a_champion_that_falls_far_behind_meets_the_better_of_two(
    started: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "behind", lambda now, past: 9.0)
    trained = train.run(started.run(4))
    assert trained.health is not None
    assert trained.health["groups"] == trained.groups
    assert "adapt beside refit_boost: the champion is 9.0 errors behind" in trained.notes[0]
    assert "held-out new groups: refit_boost" in trained.notes[1]
    assert len(trained.challengers) == 1
    assert trained.challengers[0].groups == trained.groups
