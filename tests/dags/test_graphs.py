"""The graphs import, hold wiring only, and keep their vital orderings."""

import ast
import itertools
from datetime import timedelta
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CHAIN = ("features", "train", "evaluate", "decide")


@pytest.fixture
def update(dags):
    return dags["ranker_update"]


def test_the_graphs_import(dags):
    assert set(dags) == {"ranker_update", "ranker_publish", "ranker_maintain", "ranker_forget"}


@pytest.mark.parametrize("path", sorted((PROJECT / "dags").glob("*.py")), ids=lambda p: p.name)
def test_a_dag_file_holds_wiring_only(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 120
    imported = [line.split() for line in lines if line.strip().startswith("from pipelines")]
    assert all(words[1] == "pipelines" for words in imported), "entry points, nothing deeper"


def test_the_stages_come_in_order(update):
    order = ["open_interval", "ingest.extract", "ingest.validate", *CHAIN]
    for earlier, later in itertools.pairwise(order):
        assert later in update.get_task(earlier).get_flat_relative_ids(upstream=False)
    assert update.get_task("decide").downstream_task_ids == {"promote", "reject"}


def test_extract_and_validate_are_mapped_over_the_tables(update):
    group = update.get_task("ingest.extract").task_group
    assert type(group).__name__ == "MappedTaskGroup"
    assert update.get_task("ingest.validate").task_group is group


def test_the_model_chain_shares_one_slot(update):
    for name in (*CHAIN, "promote", "reject"):
        assert update.get_task(name).pool == "ranker"


def test_every_stage_works_in_the_runs_turn_and_the_last_releases_it():
    module = ast.parse((PROJECT / "dags" / "ranker_update.py").read_text())
    bodies = {
        each.name: ast.unparse(each)
        for each in ast.walk(module)
        if isinstance(each, ast.FunctionDef)
        and any("task(" in f"{ast.unparse(d)}(" for d in each.decorator_list)
    }
    assert {"extract", "validate", *CHAIN[:-1], "promote", "reject"} <= set(bodies)
    for name, body in bodies.items():
        last = "last=True" if name in ("promote", "reject") else ""
        assert f"with current_turn({last}) as run" in body


def test_the_schedule_gives_whole_weeks(update):
    assert type(update.timetable).__name__ == "CronDataIntervalTimetable"
    assert update.catchup is False
    assert update.start_date.isoformat() == "2017-01-02T00:00:00+00:00"


def test_no_task_depends_on_the_past(update):
    # With one that does, `airflow backfill create` refuses --run-backwards.
    assert not any(task.depends_on_past for task in update.tasks)


def test_the_trigger_form_asks_for_the_interval(update):
    assert {"start", "end", "shop"} <= set(update.params)


def test_every_task_knows_which_errors_a_retry_can_help_and_when_it_is_given_up(dags):
    for task in (task for dag in dags.values() for task in dag.tasks):
        assert task.retries == 3
        assert task.retry_policy is not None
        assert timedelta(hours=1) < task.execution_timeout < timedelta(days=1)


def test_publishing_follows_the_decision(update, dags):
    published = {asset.uri for asset in dags["ranker_publish"].timetable.asset_condition.objects}
    for name in ("promote", "reject"):
        assert {outlet.uri for outlet in update.get_task(name).outlets} == published


def test_maintenance_comes_before_its_proof_and_beside_no_model(dags):
    graph = dags["ranker_maintain"]
    assert graph.get_task("maintain").downstream_task_ids == {"verify"}
    assert graph.get_task("maintain").pool == "ranker"
    assert graph.max_active_runs == 1
    assert graph.catchup is False
    assert type(graph.timetable).__name__ == "CronTriggerTimetable", "none at once after `make up`"
    assert "shop" in graph.params


def test_forgetting_asks_for_the_shopper_and_the_reason_beside_no_model(dags):
    graph = dags["ranker_forget"]
    assert {"shop", "shopper", "reason"} <= set(graph.params)
    assert graph.get_task("forget").downstream_task_ids == {"verify"}
    assert graph.get_task("forget").pool == "ranker"
    assert dags["ranker_publish"].get_task("publish").pool == "ranker"
    assert graph.max_active_runs == 1
    assert type(graph.timetable).__name__ == "NullTimetable"


@pytest.mark.parametrize(
    "name", ["ranker_update", "ranker_publish", "ranker_maintain", "ranker_forget"]
)
def test_each_graph_is_documented_by_its_module(dags, name):
    module = ast.parse((PROJECT / "dags" / f"{name}.py").read_text())
    documented = ast.get_docstring(module, clean=False)
    assert dags[name].doc_md.strip() == documented.strip()
    assert "*Schedule*" in documented
    stages = {
        "ranker_update": ("extract", *CHAIN[:-1], "promote"),
        "ranker_publish": ("publish",),
        "ranker_forget": ("forget", "verify"),
    }
    for stage in stages.get(name, ("maintain", "verify", "back up")):
        assert f"**{stage}**" in documented


@pytest.mark.parametrize(
    "name", ["ranker_update", "ranker_publish", "ranker_maintain", "ranker_forget"]
)
def test_parsing_imports_nothing_heavy(name):
    import subprocess
    import sys

    script = (
        "import sys, runpy; sys.path[:0] = ['.', 'plugins'];"
        f"runpy.run_path('dags/{name}.py');"
        "heavy = {'mlflow', 'lightgbm', 'great_expectations', 'duckdb', 'matplotlib', 'ibis'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert outcome.stdout.strip().splitlines()[-1] == "[]"
