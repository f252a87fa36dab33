"""An installation that version 0.1.0 made is opened, verified, continued and verified again.

It is kept as an archive beside this file: what is on disk is a promise that a restructured code
has to keep. `facts.py` tells what is known of it, `make_installation.py` how it was made.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from pipelines import features, loop, maintain
from pipelines.inspect import status
from pipelines.shared.models import challengers
from pipelines.shared.run import Installation, Run
from tests.golden import facts

ARCHIVE = Path(__file__).parent / "installation-0.1.0.tar.gz"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked somewhere."""
    return unpacked(tmp_path_factory.mktemp("golden"))


def unpacked(root: Path) -> Path:
    """The archive's installation, in a folder below `root`."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(root, filter="data")
    (made,) = root.iterdir()
    facts.relocate(made, facts.NOWHERE, str(made))
    return made


@pytest.fixture(scope="module")
def installation(folder: Path) -> Installation:
    return Installation.open(facts.settings(folder), facts.SHOP)


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    """What the code that made it knew of it."""
    facts_of: dict[str, Any] = json.loads((folder / "expected.json").read_text("utf-8"))
    for part in facts_of.values():
        part.get("verified", {}).pop("checked", None)
    return facts_of


@pytest.fixture(scope="module")
def known(installation: Installation) -> dict[str, Any]:
    """What today's code knows of it before it goes on, as JSON holds it."""
    facts_of: dict[str, Any] = json.loads(json.dumps(facts.of(installation), default=str))
    return facts_of


@pytest.fixture(scope="module")
def last(known: dict[str, Any], installation: Installation) -> dict[str, Any]:
    """The week that waits in the shop's files, taken through the loop by today's code."""
    del known  # It is asked for first: what was known before is not what is known after.
    run = Run.of(installation.settings, facts.SHOP, facts.WEEKS[3])
    loop.run_interval(run, lambda stage, line: None)
    facts_of: dict[str, Any] = json.loads(json.dumps(facts.of_last(installation), default=str))
    return facts_of


def test_it_is_whole(known: dict[str, Any]) -> None:
    assert known["verified"]["faults"] == []
    assert known["verified"]["rows"] > 0


@pytest.mark.parametrize(
    "fact",
    ["verified", "manifests", "versions", "decisions", "status", "champion", "alias", "model",
     "features", "categorical", "vocabulary", "rows_at", "lake"],
)  # fmt: skip
def test_what_is_on_record_reads_as_it_was_written(
    known: dict[str, Any], expected: dict[str, Any], fact: str
) -> None:
    assert known[fact] == expected["known"][fact]


def test_the_champion_scores_as_it_did(known: dict[str, Any], expected: dict[str, Any]) -> None:
    assert known["scores"] == pytest.approx(expected["known"]["scores"], rel=1e-9)


def test_the_champion_is_found_through_the_registry(
    known: dict[str, Any], installation: Installation
) -> None:
    uri = installation.settings.mlflow_uri.get_secret_value()
    mlflow.set_tracking_uri(uri)
    folder = mlflow.artifacts.download_artifacts("models:/golden-search@champion", tracking_uri=uri)
    (model,) = Path(folder).rglob("model.txt")
    assert hashlib.sha256(model.read_bytes()).hexdigest() == known["model"]


@pytest.mark.parametrize(
    "fact",
    ["verified", "split", "groups", "keys", "challengers", "parent", "outcome", "promoted",
     "rows_at", "lake"],
)  # fmt: skip
def test_it_goes_on_as_it_would_have(
    last: dict[str, Any], expected: dict[str, Any], fact: str
) -> None:
    assert last[fact] == expected["last"][fact]


def test_its_features_are_what_they_would_have_been(
    last: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Latent factors are rounded from single precision: another machine may say a digit else."""
    assert list(last["features"]) == list(expected["last"]["features"])
    for name, (count, mean) in expected["last"]["features"].items():
        near = 1e-2 if "latent" in name else 1e-6
        assert last["features"][name] == [count, pytest.approx(mean, rel=near, abs=near)], name


def test_it_is_whole_afterwards_and_a_rerun_finds_nothing_to_do(
    last: dict[str, Any], installation: Installation
) -> None:
    before = status.report_of(installation)
    run = Run.of(installation.settings, facts.SHOP, facts.WEEKS[3])
    again = loop.run_interval(run, lambda stage, line: None)
    assert again["outcome"] == last["outcome"]
    after = status.report_of(installation)
    assert after["champion"] == before["champion"]
    assert after["synced"] == before["synced"]
    maintain.run(installation)
    assert maintain.verify(installation).faults == ()


def _model(run: Run) -> None:
    (model,) = challengers.read(run.ledger, run.shop.surface.name, run.interval).challengers
    path = run.lake.local_root / model.artifact
    path.write_text(path.read_text().replace("0.0", "0.1", 1))


def _scores(run: Run) -> None:
    table = f"scores/{run.shop.surface.name}"
    rows = run.lake.read(table, [run.interval]).drop_columns(["interval_start"])
    run.lake.replace(table, run.interval, rows.slice(1))


def _page(run: Run) -> None:
    page, *_ = (run.lake.local_root / "validation").rglob(f"{run.interval.key}.html")
    page.unlink()


def _served(run: Run) -> None:
    run.lake.remove(f"serving/{run.shop.surface.name}", [run.interval.key])


def _state(run: Run) -> None:
    run.lake.remove("state/items", [run.interval.key])


@pytest.mark.parametrize(
    ("damage", "stage"),
    [(_model, "train"), (_scores, "evaluate"), (_page, "validate"), (_served, "serve"),
     (_state, "features")],
)  # fmt: skip
def test_whatever_is_damaged_is_named_and_repaired(
    last: dict[str, Any], installation: Installation, damage: Callable[[Run], None], stage: str
) -> None:
    run = Run.of(installation.settings, facts.SHOP, facts.WEEKS[3])
    if run.ledger.manifest("serve", run.shop.surface.name, run.interval) is None:
        features.serve(run)
    champion = installation.ledger.champion()
    damage(run)
    (fault,) = maintain.verify(installation).faults
    assert (fault.stage, fault.interval) == (stage, run.interval)
    maintain.repair(installation, [fault])
    assert maintain.verify(installation).faults == ()
    assert installation.ledger.champion() == champion
