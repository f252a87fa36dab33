"""Tracking against a real MLflow server on loopback: shown, registered, found again, loadable."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from local.processes import free_port
from pipelines import evaluate
from pipelines.evaluate import holdouts
from pipelines.evaluate.tracking import examples
from pipelines.evaluate.tracking.mlflow_tracker import MlflowTracker
from pipelines.inspect import doctor
from pipelines.promote.registry import MlflowRegistry, StoredVersions, VersionMissing
from pipelines.promote.stage import promote, reject
from pipelines.shared.errors import TrackingUnavailable
from pipelines.shared.models import booster
from pipelines.shared.run import Run
from pipelines.shared.servable import packaging
from tests.evaluate.real_groups import FEATURES, WEEK, Installation

pytestmark = pytest.mark.services
MODEL = "completejourney-basket"
Real = tuple[Path, dict[str, dict[str, int]]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
            *("--port", str(port), "--workers", "1", "--serve-artifacts"),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ],
        env=os.environ
        | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2)  # noqa: S310
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, real: Real, server: str) -> Installation:
    """A first model and a week with two challengers, evaluated and decided."""
    made = Installation.at(tmp_path_factory.mktemp("tracked"), *real, mlflow_uri=server)
    first = made.run(0, 5)
    made.trained(first, made.fit(first, "first"))
    assert evaluate.run(first).verdict.outcome == "promote"
    promote(first)
    later = made.run(5)
    made.trained(later, *(made.fit(later, name, 1, n) for name, n in (("boost", 20), ("refit", 8))),
                 parent=1)  # fmt: skip
    evaluate.run(later)
    reject(later)
    return made


@pytest.fixture
def client(server: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(server, server)


def contents(client: Any) -> Any:
    """Everything that the server knows, but for times and metric points."""
    experiment = client.get_experiment_by_name("completejourney/basket")
    runs = client.search_runs([experiment.experiment_id])
    return (
        sorted((run.info.run_id, sorted(run.data.tags.items()), sorted(run.data.params.items()),
                sorted(run.data.metrics.items())) for run in runs),
        sorted((int(each.version), sorted(each.tags.items()), each.run_id, each.aliases)
               for each in client.search_model_versions(f"name = '{MODEL}'")),
        len(client.search_logged_models([experiment.experiment_id])),
    )  # fmt: skip


def interval_run(client: Any, run: Run) -> tuple[Any, list[Any]]:
    """The run of an interval and its children."""
    experiment = client.get_experiment_by_name("completejourney/basket")
    found = client.search_runs([experiment.experiment_id])
    [parent] = [
        each for each in found
        if each.data.params.get("interval_start") == run.interval.key
        and each.data.tags["freshrank.kind"] == "interval"
    ]  # fmt: skip
    children = [
        each for each in found if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    return parent, sorted(children, key=lambda each: each.data.tags["freshrank.strategy"])


def sample(run: Run) -> pa.Table:
    """The candidates that a version's input example is made of."""
    cut = run.interval.end - 3 * WEEK / 7
    return examples.typical(holdouts.forward(run, cut, set(FEATURES)).rows)


def test_an_interval_is_a_run_and_each_challenger_a_child(
    installation: Installation, client: Any
) -> None:
    run = installation.run(5)
    parent, children = interval_run(client, run)
    assert [child.data.tags["freshrank.strategy"] for child in children] == ["boost", "refit"]
    assert {each.info.status for each in [parent, *children]} == {"FINISHED"}
    [manifest] = [
        each for each in run.ledger.manifests("evaluate") if each.interval == run.interval
    ]
    assert parent.data.tags["freshrank.verdict"] == manifest.details["verdict"]["outcome"]
    assert (
        parent.data.tags["freshrank.reasons"].split("\n") == manifest.details["verdict"]["reasons"]
    )
    assert parent.data.tags["freshrank.decision"] == "reject"
    for name in ("ndcg_at_10/champion", "ndcg_at_10/baseline", "gain_low", "candidate_recall",
                 "memory_ndcg_at_10/champion", "coverage_at_10/champion"):  # fmt: skip
        [point] = client.get_metric_history(parent.info.run_id, name)
        assert point.step == 6
    boost = children[0]
    assert boost.data.params["trees"] == "20"
    plots = {file.path for file in client.list_artifacts(boost.info.run_id, "plots")}
    assert plots == {"plots/feature_importance.png"}
    inputs = client.get_run(boost.info.run_id).inputs.dataset_inputs
    assert {each.dataset.name for each in inputs} == {"groups", "memory"}
    assert "delta_table_version" in inputs[0].dataset.source


def test_versions_carry_where_they_come_from(installation: Installation, client: Any) -> None:
    run = installation.run(5)
    versions = {version.version: version for version in run.ledger.versions()}
    assert sorted(versions) == [1, 2, 3]
    for number, known in versions.items():
        tags = client.get_model_version(MODEL, str(number)).tags
        assert tags["freshrank.strategy"] == known.strategy
        assert tags["freshrank.content_hash"] == known.content_hash
        assert tags["freshrank.parent"] == str(known.parent)
        assert tags["freshrank.trained_through"] == f"{known.trained_through:%Y-%m-%dT%H:%M:%SZ}"
        assert tags["freshrank.decision"] == ("promote" if number == 1 else "reject")
        # No features were built here, so each step's hash is the dash of an unknown one.
        steps = 5 if number == 1 else 1
        assert tags["freshrank.data.groups"] == hashlib.sha256(b"-" * steps).hexdigest()
    assert client.get_model_version_by_alias(MODEL, "champion").version == "1"


def test_a_rerun_adds_nothing(installation: Installation, client: Any) -> None:
    before = contents(client)
    evaluate.run(installation.run(0, 5))
    promote(installation.run(0, 5))
    evaluate.run(installation.run(5))
    reject(installation.run(5))
    assert contents(client) == before


def test_a_kill_at_any_call_heals(
    installation: Installation, client: Any, tmp_path: Path, real: Real, server: str
) -> None:
    """Cut the recording off after every call that writes; the rerun ends as one clean run."""
    from mlflow import MlflowClient

    run = installation.run(6)
    installation.trained(run, installation.fit(run, "boost", 1, 6), parent=1)
    calls = ("create_run", "log_batch", "log_inputs", "log_artifacts", "create_logged_model",
             "log_model_artifacts", "finalize_logged_model", "create_model_version",
             "set_terminated")  # fmt: skip

    class Killed(BaseException):
        pass

    kills: set[tuple[str, int]] = set()
    seen: Counter[str] = Counter()

    def dying(name: str, call: Any) -> Any:
        def calling(*args: Any, **named: Any) -> Any:
            answer = call(*args, **named)
            seen[name] += 1
            if (name, seen[name]) not in kills:
                kills.add((name, seen[name]))
                raise Killed
            return answer

        return calling

    with pytest.MonkeyPatch.context() as patch:
        for name in calls:
            patch.setattr(MlflowClient, name, dying(name, getattr(MlflowClient, name)))
        while True:
            seen.clear()
            with suppress(Killed):
                evaluate.run(run)
                break
    assert {name for name, _ in kills} == set(calls)
    assert {("log_batch", 4), ("set_terminated", 2)} <= kills
    evaluation = evaluate.run(run)
    whole, children = interval_run(client, run)
    [boost] = children
    for each in (whole, boost):
        assert each.info.status == "FINISHED"
        histories = [
            client.get_metric_history(each.info.run_id, name) for name in each.data.metrics
        ]
        assert {len(points) for points in histories} == {1}
    found = client.search_model_versions(f"name = '{MODEL}'")
    assert [int(each.version) for each in found if each.run_id == boost.info.run_id] == [4]
    assert evaluation.as_dict()["evaluation"]["challengers"][0]["version"] == 4
    experiment = client.get_experiment_by_name("completejourney/basket").experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{boost.info.run_id}'")
    assert [str(model.status) for model in models] == ["READY"]
    before = contents(client)
    evaluate.run(run)
    assert contents(client) == before


LOADING = """
import sys, mlflow, numpy, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
example = model.input_example
assert model.metadata.signature.inputs.input_names() == list(example.columns)
assert "pipelines" not in sys.modules
rows = pandas.read_json(sys.argv[3], orient="split", dtype=False)
rows["pair_orders"] = rows["pair_orders"].astype("float64")
for each in (example, rows):
    print(*[repr(float(score)) for score in model.predict(each)])
"""


def test_a_version_scores_raw_columns_in_a_process_without_this_project(
    installation: Installation, server: str, tmp_path: Path
) -> None:
    run = installation.run(5)
    version = run.ledger.version(2)
    path = run.lake.local_root / version.artifact
    coded = run.lake.read("groups/basket", [run.interval]).slice(0, 40)
    raw = packaging.example(coded, booster.card(path))
    assert raw["item_category"].map(type).eq(str).all()
    raw.to_json(tmp_path / "rows.json", orient="split")
    wanted = [booster.score(path, each, 1).tolist() for each in (sample(run), coded)]
    assert [len(set(each)) > 1 for each in wanted] == [False, True]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", LOADING, server, f"models:/{MODEL}/2", tmp_path / "rows.json"]
    done = subprocess.run(
        command, env=clean, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    scores = [[float(each) for each in line.split()] for line in done.stdout.splitlines()]
    for own, expected in zip(scores, wanted, strict=True):
        assert own == pytest.approx(expected)


def test_an_unknown_category_and_codes_are_taken_too(
    installation: Installation, server: str
) -> None:
    import mlflow

    run = installation.run(5)
    path = run.lake.local_root / run.ledger.version(2).artifact
    coded = run.lake.read("groups/basket", [run.interval]).slice(0, 20)
    mlflow.set_tracking_uri(server)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    names = list(booster.card(path).features)
    codes = model.predict(coded.select(names).to_pandas())
    champion = run.lake.local_root / run.ledger.version(1).artifact
    assert codes == pytest.approx(booster.score(champion, coded, 1))
    raw = packaging.example(coded, booster.card(path))
    raw["item_category"] = "never heard of"
    place = coded.column_names.index("item_category")
    unknown = coded.set_column(place, "item_category", pa.array([-1] * 20, pa.int32()))
    assert model.predict(raw) == pytest.approx(booster.score(champion, unknown, 1))


def test_the_alias_is_healed_and_taken_away(
    server: str, client: Any, installation: Installation
) -> None:
    registry = MlflowRegistry(server, "completejourney", "basket")
    registry.follow(2)
    assert client.get_model_version_by_alias(MODEL, "champion").version == "2"
    registry.follow(None)
    assert client.get_registered_model(MODEL).aliases == {}
    promote(installation.run(0, 5))
    assert client.get_model_version_by_alias(MODEL, "champion").version == "1"


def registry_findings(made: Installation) -> list[doctor.Finding]:
    settings = made.settings
    return [each for each in doctor.examine(settings, "completejourney")
            if each.subject == "registry"]  # fmt: skip


def test_a_deleted_champion_is_registered_again_from_the_lake(
    server: str, client: Any, installation: Installation
) -> None:
    import mlflow

    first = installation.run(0, 5)
    promote(first)
    [well] = registry_findings(installation)
    assert well.well
    client.set_registered_model_alias(MODEL, "champion", "2")
    [moved] = registry_findings(installation)
    assert not moved.well
    assert (
        "is at version 2 in MLflow, and the ledger's champion is there version 1" in moved.message
    )
    assert "python -m pipelines run --shop completejourney --start" in moved.message
    client.delete_registered_model_alias(MODEL, "champion")
    client.delete_model_version(MODEL, "1")
    [missing] = registry_findings(installation)
    assert "version 1 of completejourney-basket, the ledger's champion, is not in MLflow" in (
        missing.message
    )
    newest = max(int(each.version) for each in client.search_model_versions(f"name = '{MODEL}'"))
    assert promote(first).champion == 1
    again = client.get_model_version_by_alias(MODEL, "champion")
    assert int(again.version) == newest + 1
    assert again.tags["freshrank.version"] == "1"
    assert again.tags["freshrank.content_hash"] == first.ledger.version(1).content_hash
    mlflow.set_tracking_uri(server)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    path = first.lake.local_root / first.ledger.version(1).artifact
    raw = packaging.example(sample(first), booster.card(path))
    assert model.predict(raw) == pytest.approx(booster.score(path, sample(first), 1))
    before, versions = contents(client), first.ledger.versions()
    promote(first)
    evaluate.run(first)
    assert contents(client) == before
    assert first.ledger.versions() == versions
    [healed] = registry_findings(installation)
    assert healed.well


def test_a_deleted_challenger_keeps_its_number(client: Any, installation: Installation) -> None:
    run = installation.run(5)
    versions = run.ledger.versions()
    client.delete_model_version(MODEL, "3")
    reject(run)
    evaluate.run(run)
    reject(run)
    assert run.ledger.versions() == versions
    [again] = client.search_model_versions(f"name = '{MODEL}' and tag.`freshrank.version` = '3'")
    assert again.tags["freshrank.decision"] == "reject"
    before = contents(client)
    evaluate.run(run)
    reject(run)
    assert contents(client) == before


def test_the_password_of_the_server_is_in_nothing_that_it_holds(
    server: str, client: Any, installation: Installation
) -> None:
    run = installation.run(7)
    installation.trained(run, installation.fit(run, "boost", 1, 5), parent=1)
    uri = server.replace("http://", "http://user:geheim%40wort@")
    evaluate.run(run, MlflowTracker(uri))
    reject(run, MlflowRegistry(uri, "completejourney", "basket"))
    parent, [boost] = interval_run(client, run)
    assert parent.data.tags["freshrank.decision"] == "reject"
    assert "geheim" not in str(contents(client))
    for each in (parent, boost):
        assert "geheim" not in str(client.get_run(each.info.run_id).to_dictionary())
    version = client.search_model_versions(f"name = '{MODEL}' and run_id = '{boost.info.run_id}'")
    assert "geheim" not in str(version)


def test_where_all_of_mlflow_is_lost_the_champion_comes_back(
    tmp_path: Path, real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    before = mlflow.get_tracking_uri()
    made = Installation.at(tmp_path, *real, mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db")
    run = made.run(0, 5)
    made.trained(run, made.fit(run, "first"))
    try:
        evaluate.run(run)
        promote(run)
        (tmp_path / "mlflow.db").rename(tmp_path / "lost.db")
        uri = f"sqlite:///{tmp_path}/new.db"
        path = run.lake.local_root / run.ledger.version(1).artifact
        stored = StoredVersions(run.ledger, run.lake.local_root)
        registry = MlflowRegistry(uri, "completejourney", "basket", stored)
        for _ in range(2):
            registry.follow(1)
        client = mlflow.MlflowClient(uri, uri)
        [only] = client.search_model_versions(f"name = '{MODEL}'")
        assert only.tags["freshrank.version"] == "1"
        assert client.get_model_version_by_alias(MODEL, "champion").version == only.version
        model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
        raw = packaging.example(sample(run), booster.card(path))
        assert model.predict(raw) == pytest.approx(booster.score(path, sample(run), 1))
        path.rename(path.with_suffix(".gone"))
        client.delete_model_version(MODEL, "1")
        with pytest.raises(VersionMissing, match=r"not in MLflow at .* not in the lake; bring"):
            registry.follow(1)
    finally:
        mlflow.set_tracking_uri(before)


def test_a_server_that_is_away_is_one_clear_error_and_soon() -> None:
    started = time.perf_counter()
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TrackingUnavailable, match=r"does not answer.*make up"):
        MlflowTracker(uri).check()
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        MlflowRegistry(uri, "completejourney", "basket").follow(1)
    assert time.perf_counter() - started < 10


def test_a_store_that_is_no_server_keeps_its_files_beside_the_lake(
    tmp_path: Path, real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    # The store is the process's own from then on: give the variable back afterwards.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    before = mlflow.get_tracking_uri()
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    made = Installation.at(tmp_path, *real, mlflow_uri=uri)
    run = made.run(0, 5)
    made.trained(run, made.fit(run, "first"))
    try:
        assert evaluate.run(run).version == 1
        assert promote(run).champion == 1
        model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
        path = run.lake.local_root / run.ledger.version(1).artifact
        expected = booster.score(path, sample(run), 1)
        assert model.predict(model.input_example) == pytest.approx(expected)
    finally:
        mlflow.set_tracking_uri(before)
    assert not (tmp_path / "mlruns").exists()
    assert any((run.lake.local_root / "mlflow").rglob("MLmodel"))


def test_examples_of_before_are_blanked_and_todays_are_nobodys(
    installation: Installation, client: Any, server: str, tmp_path: Path
) -> None:
    import mlflow

    mlflow.set_tracking_uri(server)
    experiment = client.get_experiment_by_name("completejourney/basket").experiment_id
    model, *_ = client.search_logged_models([experiment])
    assert examples.blank(server, "completejourney/basket") == 0
    assert examples.blank(server, "another/experiment") == 0
    for name, wrap in (("input_example.json", False), ("serving_input_example.json", True)):
        table = {"columns": list(FEATURES), "data": [[1.5, None, 2.5, "COUPONS"]] * 5}
        (tmp_path / name).write_text(json.dumps({"dataframe_split": table} if wrap else table))
        client.log_model_artifact(model.model_id, str(tmp_path / name))
    assert examples.blank(server, "completejourney/basket") == 1
    assert examples.blank(server, "completejourney/basket") == 0
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}").input_example
    assert list(loaded.columns) == list(FEATURES)
    assert loaded.fillna(0.0).to_numpy().tolist() == [[0.0] * len(FEATURES)]
