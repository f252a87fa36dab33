"""Law 12: a shopper who is forgotten is nowhere in what was stored, and does not come back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local.servers.postgres import PostgresServer
from pipelines import extract, maintain, publish, validate
from pipelines.inspect import doctor
from pipelines.maintain import backup
from pipelines.maintain.forget import stage
from pipelines.shared.errors import NamesTheShopper, NotThere, SettingsError
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import Ledger
from pipelines.shared.run import Run
from tests.maintain.forgettable import (
    KEY,
    PLANTED,
    TOLD,
    Forgettable,
    built,
    copy_of,
    week,
)

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
TABLES = ("users", "articles", "shown", "actions")


@pytest.fixture(scope="module")
def plain_original(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Forgettable]:
    """Not to be written to; ids of shoppers are stored as they are."""
    folder = tmp_path_factory.mktemp("plain")
    with built(folder, postgres, pseudonymised=False) as made:
        yield made


@pytest.fixture(scope="module")
def hashed_original(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Forgettable]:
    """Not to be written to; ids of shoppers are pseudonyms."""
    folder = tmp_path_factory.mktemp("hashed")
    with built(folder, postgres, pseudonymised=True) as made:
        yield made


@pytest.fixture
def plain(
    plain_original: Forgettable, tmp_path: Path, postgres: PostgresServer
) -> Iterator[Forgettable]:
    """A copy of the test's own."""
    with copy_of(plain_original, tmp_path, postgres) as made:
        yield made


@pytest.fixture(params=["plain", "hashed"])
def shop(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> Iterator[Forgettable]:
    """A copy of the test's own, with ids as they are or as pseudonyms."""
    with copy_of(request.getfixturevalue(f"{request.param}_original"), tmp_path, postgres) as made:
        yield made


def command(shop: Forgettable, *arguments: str) -> Any:
    """What `python -m pipelines forget …` printed, as JSON."""
    own = {
        "LAKE": shop.settings.lake, "BACKUP": shop.settings.backup, "SHOP": "tiny",
        "LEDGER_URL": shop.settings.ledger_url.get_secret_value(),
        "MLFLOW_URI": shop.settings.mlflow_uri.get_secret_value(), "CONNECTIONS__TINY": shop.url,
        "SHOPS": shop.settings.shops, "EXPECTATIONS": shop.settings.expectations,
        "PSEUDONYM_KEY": KEY,
    }  # fmt: skip
    outcome = subprocess.run(
        [sys.executable, "-m", "pipelines", "forget", *arguments, "--json"],
        env=os.environ | {f"FRESHRANK_{name}": str(value) for name, value in own.items()},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert PLANTED not in outcome.stdout + outcome.stderr
    return json.loads(outcome.stdout)


def old_example(shop: Forgettable) -> None:
    """Let a model carry candidates of the planted shopper, as versions once did."""
    [first, *_] = sorted((shop.folder / "lake").rglob("input_example.json"))
    example = json.loads(first.read_text())
    example["data"] = [[48271.19 if isinstance(v, float) else v for v in example["data"][0]]] * 5
    first.write_text(json.dumps(example))


def test_nothing_is_left_and_nothing_comes_back(shop: Forgettable) -> None:
    old_example(shop)
    before = shop.traces()
    for place in (
        "lake/tiny/changes/", "lake/tiny/valid/", "lake/tiny/quarantine/", "lake/tiny/state/",
        "lake/tiny/groups/", "lake/tiny/scores/", "lake/tiny/serving/", "lake/tiny/validation/",
        "lake/tiny/mlflow/", "backup/tiny/", "the published lists",
    ):  # fmt: skip
        assert any(each.startswith(place) for each in before), place
    assert any("_delta_log" in each for each in before)
    others = shop.lists() - {shop.stored_id}
    champion = shop.installation.ledger.champion()
    done = command(shop, "--shopper", PLANTED, "--reason", "request 7", "--by", "Ana")
    assert shop.traces() == []
    assert maintain.verify(shop.installation).faults == ()
    assert shop.lists() == others
    assert champion in done["versions"]
    assert {name for name, rows in done["rows"].items() if rows} > {
        "published", "changes/users", "quarantine/actions", "groups/search", "scores/search",
        "state/shoppers", "serving/search",
    }  # fmt: skip
    recorded = shop.installation.ledger.forgettings()
    assert [each.event for each in recorded] == ["begun", "erased"]
    assert {(each.actor, each.reason) for each in recorded} == {("Ana", "request 7")}
    assert recorded[1].details["rows"] == done["rows"]
    # The shopper is still buying in the shop.
    for number in (TOLD, TOLD + 1):
        shop.update(number)
        shop.publish(number)
        assert shop.traces() == []
    [trained, *_] = [
        each for each in shop.installation.ledger.manifests("train") if each.interval == week(TOLD)
    ]
    [challenger] = trained.details["challengers"]
    assert challenger["strategy"] == "compact"
    assert challenger["forced"]
    assert trained.details["notes"] == [
        f"compact, because version {champion} learned from a shopper who was forgotten since"
    ]
    for number in range(TOLD):
        run = Run.of(shop.settings, "tiny", week(number))
        for table in TABLES:
            extract.reextract(run, table)
            validate.run(run, table)
    decided = shop.installation.ledger.decisions()
    shop.update(2)
    assert shop.installation.ledger.decisions() == decided, "a decided week keeps its decision"
    maintain.back_up(shop.installation)
    assert shop.traces() == []
    assert maintain.verify(shop.installation).faults == ()


class Killed(BaseException):
    """The process ends here."""


STEPS = {
    "begun": (Ledger, "record_forgetting", 0),
    "lists": (publish.stage.PublishedTable, "erase", 0),
    "observed": (Ledger, "strike", 1),
    "some manifest": (Ledger, "record", 12),
    "some partition": (Lake, "replace", 11),
    "a partition of groups": (Lake, "replace", 44),
    "some old files": (Lake, "keep_only_present", 9),
    "backup": (backup, "back_up", 0),
    "erased": (Ledger, "record_forgetting", 1),
}


@pytest.mark.parametrize(
    ("step", "after"),
    [*((step, False) for step in STEPS), ("some manifest", True)],
)
def test_a_kill_at_any_step_is_mended_by_the_same_command(
    step: str, after: bool, plain: Forgettable, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, calls = STEPS[step]
    whole, left = getattr(owner, name), calls

    def killed(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            return whole(*arguments, **named)
        if after:
            whole(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(Killed):
            maintain.forget(plain.installation, PLANTED, "request 7", "Ana")
    recorded = plain.installation.ledger.forgettings()
    if recorded and recorded[-1].event == "begun":
        # The next extraction leaves them out already.
        run = Run.of(plain.settings, "tiny", week(TOLD))
        extract.run(run, "actions")
        assert PLANTED not in run.lake.read("changes/actions", [run.interval])["uid"].to_pylist()
    done = maintain.forget(plain.installation, PLANTED, "request 7", "Ana")
    assert plain.traces() == []
    assert maintain.verify(plain.installation).faults == ()
    assert done.versions == (1, 2, 3)
    assert stage.unfinished(plain.installation) == []


def test_an_old_lake_that_comes_back_is_noticed_and_erased_again(shop: Forgettable) -> None:
    lake, old = shop.folder / "lake", shop.folder.parent / f"{shop.folder.name}-old"
    shutil.copytree(lake, old)
    command(shop, "--shopper", PLANTED, "--reason", "request 7")
    shutil.rmtree(lake)
    shutil.move(old, lake)
    shutil.rmtree(shop.folder / "backup")
    faults = maintain.verify(shop.installation).faults
    assert {fault.stage for fault in faults} == {
        "extract",
        "validate",
        "features",
        "serve",
        "evaluate",
    }
    done = command(shop, "--again", "--reason", "an old disk")
    assert done["rows"]["changes/users"] == 1
    assert shop.traces() == []
    assert maintain.verify(shop.installation).faults == ()


def test_two_shoppers_are_forgotten_one_after_the_other_and_an_interrupted_one_first(
    plain: Forgettable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "replace", killed)
        with pytest.raises(Killed):
            maintain.forget(plain.installation, "u-3", "request 8", "Ana")
    assert [each.reason for each in stage.unfinished(plain.installation)] == ["request 8"]
    [finding] = doctor._forgotten(plain.installation)
    assert not finding.well
    assert "'request 8'" in finding.message
    maintain.forget(plain.installation, PLANTED, "request 7", "Ana")
    assert list(doctor._forgotten(plain.installation)) == []
    stored = plain.installation.lake.read("state/shoppers")["shopper_id"].to_pylist()
    assert not {"u-3", PLANTED} & set(stored)
    assert maintain.verify(plain.installation).faults == ()
    events = [(each.reason, each.event) for each in plain.installation.ledger.forgettings()]
    assert events == [
        ("request 8", "begun"), ("request 8", "erased"), ("request 7", "begun"),
        ("request 7", "erased"),
    ]  # fmt: skip


def test_changes_that_expired_before_are_accounted_for(plain: Forgettable) -> None:
    declared = plain.settings.shops / "tiny" / "shop.yaml"
    declared.write_text(
        declared.read_text() + "\nretention: {changes_days: 7, quarantine_days: 7}\n"
    )
    maintain.run(plain.installation)
    maintain.forget(plain.installation, PLANTED, "request 7", "Ana")
    report = maintain.verify(plain.installation)
    assert report.faults == ()
    assert report.expired > 0
    assert plain.traces() == []


def test_what_cannot_be_forgotten_is_refused_with_the_way_out(plain: Forgettable) -> None:
    installation = plain.installation
    with pytest.raises(NotThere, match="no shopper with this id"):
        maintain.forget(installation, "nobody", "request 7", "Ana")
    with pytest.raises(NamesTheShopper, match="word it without"):
        maintain.forget(installation, PLANTED, f"{PLANTED} asked", "Ana")
    with pytest.raises(NotThere, match="on record as forgotten"):
        maintain.forget_again(installation, "request 7", "Ana")
    assert installation.ledger.forgettings() == []
    nameless = replace(installation, settings=_with_key(plain, None))
    with pytest.raises(SettingsError, match="FRESHRANK_PSEUDONYM_KEY is not set"):
        maintain.forget(nameless, PLANTED, "request 7", "Ana")
    maintain.forget(installation, PLANTED, "request 7", "Ana")
    maintain.forget(installation, PLANTED, "again", "Ana")
    for key, message in ((None, "is not set"), ("another", "is not the one with which")):
        run = Run(_with_key(plain, key), installation.shop, week(TOLD))
        with pytest.raises(SettingsError, match=message):
            extract.run(run, "shown")


def _with_key(shop: Forgettable, key: str | None) -> Any:
    data = shop.settings.model_dump() | {"pseudonym_key": key}
    return type(shop.settings)(**data)


def test_models_that_learned_later_or_elsewhere_are_not_named(plain: Forgettable) -> None:
    """Who only ever was in the first week's lists taught no model that looks at the last weeks."""
    from pipelines.train.learned import GroupTime, learners

    installation = plain.installation
    late = week(TOLD + 1).start
    assert learners(installation, [GroupTime(late, late)]) == frozenset()
    first = week(0).start + timedelta(days=1)
    named = learners(installation, [GroupTime(week(0).start, first)])
    versions = {each.content_hash: each.strategy for each in installation.ledger.versions()}
    assert named == set(versions)
