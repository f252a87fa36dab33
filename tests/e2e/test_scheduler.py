"""Three intervals through a real scheduler; then the last one again, which changes nothing."""

from __future__ import annotations

import json
import time

import mlflow
import pytest
import sqlalchemy as sa
from deltalake import DeltaTable

from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.models import booster
from pipelines.shared.run import Run
from pipelines.shared.servable import packaging

pytestmark = [pytest.mark.services, pytest.mark.airflow, pytest.mark.timeout(1500)]

DAG = "ranker_update"
FIRST = Interval.of("2017-01-02", "2017-02-27")
WEEKS = (Interval.of("2017-02-27", "2017-03-06"), Interval.of("2017-03-06", "2017-03-13"))


@pytest.fixture(scope="module")
def replayed(running, api, wait_for_runs):
    """The first model from the trigger form, then two weeks from a backfill with default flags."""
    while api(f"dags/{DAG}") is None:
        pass
    form = {"start": "2017-01-02", "end": "2017-02-27"}
    assert api(f"dags/{DAG}/dagRuns", {"logical_date": None, "conf": form}) == 200
    assert [run["state"] for run in wait_for_runs(DAG, "manual", 1)] == ["success"]
    running.run(
        "airflow",
        *("backfill", "create", "--dag-id", DAG),
        *("--from-date", "2017-02-27", "--to-date", "2017-03-06"),
    )
    runs = wait_for_runs(DAG, "backfill", len(WEEKS))
    assert [run["state"] for run in runs] == ["success"] * len(WEEKS)
    return runs


@pytest.fixture(scope="module")
def published(replayed, settings):
    """The lists of the last week, which a DAG of its own writes some time after the decision."""
    run = Run.of(settings, "completejourney", WEEKS[-1])
    deadline = time.monotonic() + 300
    while (manifest := run.ledger.manifest("publish", "basket", WEEKS[-1])) is None:
        assert time.monotonic() < deadline, run.ledger.manifests("publish")
        time.sleep(1)
    return manifest


def everything(settings):
    """All that a run leaves: the lake's rows, the ledger's facts, the registry's versions."""
    run = Run.of(settings, "completejourney", WEEKS[-1])
    root = run.lake.local_root
    tables = sorted(path.parent for path in root.rglob("_delta_log"))
    lake = {}
    for path in tables:
        table = DeltaTable(path).to_pyarrow_table()
        order = [(name, "ascending") for name in table.column_names]
        lake[str(path.relative_to(root))] = content_hash(table.sort_by(order))
    models = {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("models/**/*.txt"))
    }
    engine = sa.create_engine(settings.ledger_url.get_secret_value(), poolclass=sa.NullPool)
    with engine.connect() as connection:
        ledger = {
            name: [
                {key: value for key, value in row.items() if key != "seconds"}
                for row in connection.execute(
                    sa.text(f"select * from {name} order by 1, 2, 3")
                ).mappings()
            ]
            for name in ("freshrank_manifests", "freshrank_versions", "freshrank_decisions")
        }
    client = mlflow.MlflowClient(*[settings.mlflow_uri.get_secret_value()] * 2)
    registry = {
        model.name: (
            dict(model.aliases),
            sorted(
                (version.version, version.run_id, tuple(sorted(version.tags.items())))
                for version in client.search_model_versions(f"name='{model.name}'")
            ),
        )
        for model in client.search_registered_models()
    }
    return {"lake": lake, "models": models, "ledger": ledger, "registry": registry}


def tasks_of(api, run):
    """A run's task instances by the task's id; of mapped ones the last."""
    page = api(f"dags/{DAG}/dagRuns/{run['dag_run_id']}/taskInstances?limit=100")
    return {task["task_id"]: task for task in page["task_instances"]}


def test_a_scheduled_interval_that_the_shops_clock_has_not_reached_is_left_out(
    replayed, api, settings, wait_for_runs
):
    (scheduled,) = wait_for_runs(DAG, "scheduled", 1)
    tasks = tasks_of(api, scheduled)
    assert tasks["open_interval"]["state"] == "skipped"
    assert {task["state"] for task in tasks.values()} == {"skipped"}
    run = Run.of(settings, "completejourney", WEEKS[-1])
    extracted = {each.interval for each in run.ledger.manifests("extract")}
    assert max(extracted) == WEEKS[-1]


def test_a_run_waits_until_the_run_before_it_has_ended(replayed, api):
    first, second = sorted(replayed, key=lambda run: run["data_interval_start"])
    assert second["start_date"] < first["end_date"], "both were begun, so the later one had to wait"
    opened, extracted = (
        tasks_of(api, second)[task] for task in ("open_interval", "ingest.extract")
    )
    assert opened["end_date"] >= first["end_date"]
    assert extracted["start_date"] >= first["end_date"]


def test_every_interval_is_decided_with_reasons(replayed, running):
    report = json.loads(running.run("python", "-m", "pipelines", "status", "--json"))
    assert [entry["start"][:10] for entry in report["intervals"]] == [
        "2017-01-02", "2017-02-27", "2017-03-06",
    ]  # fmt: skip
    first, *later = report["intervals"]
    assert first["verdict"] == "promote"
    assert first["promoted"] == 1
    for entry in report["intervals"]:
        assert any("NDCG@10" in reason for reason in entry["reasons"])
        assert entry["extracted"] == entry["valid"] + entry["quarantined"] + entry["duplicates"]
        assert entry["quarantined"] > 0
        assert all(entry["seconds"][stage] > 0 for stage in ("extract", "features", "train"))
    for entry in later:
        assert entry["champion"]["version"] >= 1
        assert len(entry["challengers"]) == 1
        assert entry["gain"]["low"] <= entry["gain"]["mean"] <= entry["gain"]["high"]


def test_the_alias_is_the_ledgers_champion(replayed, settings):
    run = Run.of(settings, "completejourney", WEEKS[-1])
    client = mlflow.MlflowClient(*[settings.mlflow_uri.get_secret_value()] * 2)
    aliased = client.get_model_version_by_alias("completejourney-basket", "champion")
    assert int(aliased.version) == run.ledger.champion()


def test_a_version_loads_as_pyfunc_and_takes_raw_features(replayed, settings):
    mlflow.set_tracking_uri(settings.mlflow_uri.get_secret_value())
    model = mlflow.pyfunc.load_model("models:/completejourney-basket@champion")
    run = Run.of(settings, "completejourney", WEEKS[-1])
    path = run.lake.local_root / run.ledger.version(run.ledger.champion()).artifact
    coded = run.lake.read("groups/basket", [WEEKS[-1]]).slice(0, 50)
    raw = packaging.example(coded, booster.card(path))
    assert list(raw.columns) == model.metadata.get_input_schema().input_names()
    wanted = booster.score(path, coded, threads=1)
    assert len(set(wanted)) > 1
    assert model.predict(raw) == pytest.approx(wanted)


def test_the_lists_are_in_the_shops_database(published, settings, wait_for_runs):
    runs = wait_for_runs("ranker_publish", "asset_triggered", 1)
    assert {run["state"] for run in runs} == {"success"}
    engine = sa.create_engine(settings.connection("completejourney"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        longest, shoppers, households = connection.execute(
            sa.text(
                "select max(n), count(*), (select count(*) from households) from "
                "(select count(*) n from freshrank_basket group by shopper_id) lists"
            )
        ).one()
    assert longest == 20
    assert shoppers == households


def test_a_finished_interval_run_again_changes_nothing(
    replayed, published, api, settings, wait_for_runs
):
    before = everything(settings)
    finished = replayed[-1]["dag_run_id"]
    assert api(f"dags/{DAG}/dagRuns/{finished}/clear", {"dry_run": False}) == 200
    runs = wait_for_runs(DAG, "backfill", len(WEEKS))
    assert [run["state"] for run in runs] == ["success"] * len(WEEKS)
    after = everything(settings)
    for part in before:
        assert after[part] == before[part], part


def test_dags_test_runs_the_next_week(replayed, running, settings):
    form = json.dumps({"start": "2017-03-13", "end": "2017-03-20"})
    # A live scheduler takes up every running run of a DAG that is not paused, this one too.
    running.run("airflow", "dags", "pause", DAG)
    try:
        running.run("airflow", "dags", "test", DAG, "--conf", form, timeout_s=400)
    finally:
        running.run("airflow", "dags", "unpause", DAG)
    decided = Run.of(settings, "completejourney", WEEKS[-1]).ledger.decisions()
    assert decided[-1].interval == Interval.of("2017-03-13", "2017-03-20")


def test_an_older_interval_never_dethrones(replayed, running, settings):
    run = Run.of(settings, "completejourney", WEEKS[-1])
    champion = run.ledger.champion()
    running.run("python", "-m", "pipelines", "run", "--start", "2016-12-26", "--end", "2017-01-02")
    oldest = run.ledger.decisions()[0]
    assert oldest.outcome == "reject"
    assert run.ledger.champion() == champion


def test_maintenance_runs_and_finds_the_lake_whole(
    replayed, published, running, api, settings, wait_for_runs
):
    while api("dags/ranker_maintain") is None:
        pass
    before = everything(settings)
    assert {"changes/orders", "groups/basket", "serving/basket"} <= before["lake"].keys()
    assert api("dags/ranker_maintain/dagRuns", {"logical_date": None, "conf": {}}) == 200
    runs = wait_for_runs("ranker_maintain", "manual", 1)
    assert [run["state"] for run in runs] == ["success"]
    assert everything(settings) == before


def test_a_household_is_forgotten_by_a_form(replayed, published, api, settings, wait_for_runs):
    while api("dags/ranker_forget") is None:
        pass
    run = Run.of(settings, "completejourney", WEEKS[-1])
    household = run.lake.read("changes/orders", [WEEKS[0]])["household_id"][0].as_py()
    form = {"shopper": str(household), "reason": "a request by letter"}
    assert api("dags/ranker_forget/dagRuns", {"logical_date": None, "conf": form}) == 200
    runs = wait_for_runs("ranker_forget", "manual", 1)
    assert [each["state"] for each in runs] == ["success"]
    for table in ("changes/orders", "changes/order_lines", "state/events", "groups/basket"):
        columns = set(run.lake.columns(table)) & {"household_id", "shopper_id"}
        held = run.lake.read(table, columns=sorted(columns))
        assert all(household not in held[name].to_pylist() for name in columns), table
    recorded = run.ledger.forgettings()
    assert [(each.event, each.reason) for each in recorded] == [
        ("begun", form["reason"]), ("erased", form["reason"]),
    ]  # fmt: skip
    assert {each.actor for each in recorded} == {runs[0]["triggering_user_name"]}
    engine = sa.create_engine(settings.connection("completejourney"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        listed = sa.text("select count(*) from freshrank_basket where shopper_id = :household")
        assert connection.scalar(listed, {"household": household}) == 0
