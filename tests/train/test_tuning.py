"""The search for settings: prequential, resumable, and never more than a proposal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines import train
from pipelines.shared.declaration import Learning
from pipelines.train import drift, tuning
from pipelines.train.data import groups
from pipelines.train.tuning import TooLittleHistory
from tests.train.baskets import Installation, interval

pytestmark = pytest.mark.slow
Install = Callable[..., Installation]


def _quiet(done: int, wanted: int) -> None:
    del done, wanted


def test_a_search_is_resumed(shop: Installation, tmp_path: Path) -> None:
    run = shop.run(7)
    reported: list[int] = []
    first = train.tune(run, 2, 3, tmp_path, lambda done, _: reported.append(done))
    assert reported == [0, 1, 2]
    more = train.tune(run, 4, 3, tmp_path, lambda done, _: reported.append(done))
    assert reported == [0, 1, 2, 2, 3, 4]
    assert more.trials[:2] == first.trials
    own = {name: getattr(run.shop.learning, name) for name in tuning.TUNED}
    assert more.trials[0].settings == own
    assert more.intervals == tuple(interval(week).key for week in (5, 6, 7))
    assert len({trial.ndcg_at_10 for trial in more.trials}) > 1
    assert shop.any.ledger.manifests("train") == []


@pytest.mark.parametrize("best", [0, 2])
def test_only_what_was_better_than_the_declared_settings_is_proposed(
    shop: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    values = [0.4, 0.3, 0.4]
    values[best] += 0.1
    left = iter(values)
    monkeypatch.setattr(tuning._Course, "value", lambda course, settings: next(left))
    study = train.tune(shop.run(7), 3, 3, tmp_path, _quiet)
    assert [trial.ndcg_at_10 for trial in study.trials] == values
    assert study.best.number == best
    if best == 0:
        assert study.proposal is None
        return
    assert study.proposal is not None
    proposed = yaml.safe_load(study.proposal.read_text())["learning"]
    assert proposed == study.best.settings
    assert Learning.model_validate(proposed).refit_decay == proposed["refit_decay"]


def test_every_group_is_scored_before_it_is_learned_and_none_from_the_cut_on(
    shop: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[set[str]] = []
    load, scored = groups.load, []

    def noting(*args: object) -> groups.Examples:
        examples = load(*args)  # type: ignore[arg-type]
        read.append(set(examples.ids.to_pylist()))
        return examples

    def counting(examples: groups.Examples, scores: np.ndarray) -> np.ndarray:
        scored.append(set(examples.ids.to_pylist()))
        return ndcg(examples, scores)

    ndcg = drift.ndcg
    monkeypatch.setattr(groups, "load", noting)
    monkeypatch.setattr(drift, "ndcg", counting)
    run = shop.run(7)
    train.tune(run, 1, 3, tmp_path, _quiet)
    learned, *rest = sorted(read, key=len, reverse=True)
    assert not learned & set().union(*scored)
    assert all(not one & two for place, one in enumerate(scored) for two in scored[:place])
    cut = run.interval.end - (run.interval.end - run.interval.start) * 3 / 7
    assert set().union(*read) <= shop.teaching(interval(0).start, cut)
    assert len(rest) == 3


def test_too_little_history_is_one_clear_error(shop: Installation, tmp_path: Path) -> None:
    with pytest.raises(TooLittleHistory, match="wants 8; tune on fewer, or later"):
        train.tune(shop.run(3), 2, 6, tmp_path, _quiet)
