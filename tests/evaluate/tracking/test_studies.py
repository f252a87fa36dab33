"""A search for settings in MLflow: a rerun completes it and adds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.evaluate.tracking.studies import record_study


def test_a_study_that_was_cut_off_is_completed_and_no_point_is_doubled(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    client.create_experiment("shop/list", artifact_location=tmp_path.as_uri())
    trials = [
        {"number": number, "settings": {"rounds": 3 + number}, "ndcg_at_10": 0.2 + number / 10}
        for number in range(2)
    ]

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", killed)
        with pytest.raises(Killed):
            record_study(uri, "shop/list", "week", trials)
    for _ in range(2):
        record_study(uri, "shop/list", "week", trials)
    experiment = client.get_experiment_by_name("shop/list")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 3
    histories = [client.get_metric_history(run.info.run_id, "ndcg_at_10") for run in runs]
    assert sorted(len(points) for points in histories) == [0, 1, 1]
