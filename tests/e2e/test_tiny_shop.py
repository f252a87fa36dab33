"""The second shop goes through the same loop: other names, text ids, logged impressions."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import mlflow
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from local import stack
from pipelines import extract, loop, maintain
from pipelines.cli import terminal
from pipelines.cli.app import app
from pipelines.inspect import status
from pipelines.maintain.upkeep import tables
from pipelines.shared.declaration import load_shop
from pipelines.shared.intervals import Interval
from pipelines.shared.mlflow_server import KIND_TAG
from pipelines.shared.run import Installation, Run
from pipelines.shared.settings import Settings
from tests import tiny_shop

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

DECLARED = Path(__file__).parents[1] / "declared"
SIZE = tiny_shop.Size(weeks=5)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """PostgreSQL and MLflow; the loop is run without Airflow here."""
    with stack(tmp_path_factory.mktemp("home"), components=()) as started:
        yield started


@pytest.fixture(scope="module")
def tiny(running, tmp_path_factory):
    """The tiny shop in a database of its own, and its settings."""
    with running.postgres.connect("postgres") as connection:
        connection.execute("create database tiny")
    url = running.postgres.url("tiny")
    folder = tmp_path_factory.mktemp("tiny")
    settings = Settings(
        lake=str(folder / "lake"),
        ledger_url=f"sqlite:///{folder}/ledger.db",
        mlflow_uri=running.mlflow_url,
        connections={"tiny": url},
        shop="tiny",
        shops=DECLARED,
        expectations=DECLARED / "expectations",
        pseudonym_key="a key for tests",
    )
    declared = load_shop("tiny", DECLARED)
    before = tiny_shop.FIRST - timedelta(days=1)
    tiny_shop.build(url, lambda: extract.install(url, declared, at=before), SIZE)
    return settings


@pytest.fixture(scope="module")
def replayed(tiny):
    whole = Interval(tiny_shop.FIRST, tiny_shop.FIRST + timedelta(weeks=SIZE.weeks))
    lines, grown = [], []
    for run in loop.runs(tiny, "tiny", whole, as_one=False):
        loop.run_interval(
            run,
            lambda stage, line: lines.append((stage, line)),
            lambda done, wanted: grown.append((done, wanted)),
        )
    assert (1, 100) in grown  # the first model's first of a hundred trees
    return run, lines


def test_it_warms_up_then_promotes_a_first_model(replayed):
    run, _ = replayed
    report = status.report_of(run)
    assert len(report["intervals"]) == SIZE.weeks
    assert report["intervals"][0]["verdict"] == "reject"
    assert any("warming up" in reason for reason in report["intervals"][0]["reasons"])
    assert report["champion"] is not None


def test_labels_are_graded(replayed):
    run, _ = replayed
    labels = run.lake.read("groups/search", columns=["label"])["label"].to_pylist()
    assert set(labels) == {0, 1, 2, 3}


def test_personal_columns_are_nowhere_in_the_lake(replayed):
    run, _ = replayed
    users = run.lake.read("changes/users").to_pydict()
    assert "email" not in users
    assert not any(city.startswith("City") for city in users["city"])
    for path in run.lake.local_root.rglob("*"):
        if path.is_file():
            assert b"@example.org" not in path.read_bytes(), path


def test_maintenance_knows_every_table_and_finds_the_lake_whole(replayed, tiny):
    run, _ = replayed
    loop.publish(run)
    opened = Installation.open(tiny, "tiny")
    root = run.lake.local_root
    there = {str(path.parent.relative_to(root)) for path in root.rglob("_delta_log")}
    assert there <= set(tables(opened))
    before = maintain.verify(opened)
    assert before.faults == ()
    assert before.checked == sum(
        len(opened.ledger.manifests(stage))
        for stage in ("extract", "validate", "features", "serve", "train", "evaluate")
    )
    models = sorted((root / "models").rglob("*.txt"))
    maintain.run(opened)
    assert maintain.verify(opened) == before
    assert sorted((root / "models").rglob("*.txt")) == models


def test_its_lists_are_published_with_its_own_ids(replayed):
    run, _ = replayed
    published = loop.publish(run)
    assert published
    engine = sa.create_engine(
        run.settings.connection(run.shop.source.connection), poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text("select shopper_id, rank, item_id from web.freshrank_search")
        ).all()
    assert {row.shopper_id for row in rows} == {f"u-{n}" for n in range(SIZE.users)}
    assert {row.rank for row in rows} == {1, 2, 3, 4, 5}
    assert all(row.item_id.startswith("sku/") for row in rows)


def test_settings_are_searched_for_from_the_command_line(replayed, tiny, monkeypatch):
    run, _ = replayed
    decided = run.ledger.decisions()
    monkeypatch.setattr(terminal, "settings_of", lambda shop: (tiny, "tiny"))
    asked = ["tune", "--trials", "2", "--intervals", "2"]
    span = ["--start", f"{run.interval.start:%F}", "--end", f"{run.interval.end:%F}"]
    outcome = CliRunner().invoke(app, asked + span)
    assert outcome.exit_code == 0, outcome.output
    assert "as declared" in outcome.output
    client = mlflow.MlflowClient(tiny.mlflow_uri.get_secret_value())
    experiment = client.get_experiment_by_name("tiny/search")
    tuned = client.search_runs([experiment.experiment_id], f"tags.`{KIND_TAG}` = 'tuning'")
    assert sum("mlflow.parentRunId" in run.data.tags for run in tuned) == 2
    assert run.ledger.decisions() == decided


def test_an_interval_without_changes_succeeds_and_says_so(replayed, tiny):
    run, _ = replayed
    champion = run.ledger.champion()
    empty = Interval(run.interval.end, run.interval.end + timedelta(weeks=1))
    with sa.create_engine(
        run.settings.connection(run.shop.source.connection), poolclass=sa.NullPool
    ).begin() as connection:
        connection.exec_driver_sql(f"alter database tiny set freshrank.clock = '{empty.end:%F}'")
    decided = loop.run_interval(Run.of(tiny, "tiny", empty), lambda stage, line: None)
    assert decided["outcome"] == "reject"
    assert run.ledger.champion() == champion
    assert run.ledger.decisions()[-1].reasons
