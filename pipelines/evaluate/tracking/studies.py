"""A search for settings of learning, as MLflow shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.shared.mlflow_server import KIND_TAG, require_reachable, translate_errors


def record_study(uri: str, experiment: str, name: str, trials: Sequence[Mapping[str, Any]]) -> None:
    """Show a search for settings: one run, and a nested run a trial; a second time adds nothing.

    Each trial has its `number`, `settings` and `ndcg_at_10`.

    Raises:
        TrackingUnavailable: the server went away; a second call completes what was begun.
    """
    require_reachable(uri)
    from mlflow import MlflowClient

    with translate_errors(uri):
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else client.create_experiment(experiment)
        recorded = {
            run.data.tags.get("mlflow.runName"): run
            for run in client.search_runs([place], f"tags.`{KIND_TAG}` = 'tuning'")
        }

        def tracked(title: str, parent: dict[str, str]) -> Any:
            tags = {KIND_TAG: "tuning", **parent}
            return recorded.get(title) or client.create_run(place, tags=tags, run_name=title)

        whole = tracked(f"tuning {name}", {})
        for trial in trials:
            title = f"tuning {name} {trial['number']}"
            run = tracked(title, {"mlflow.parentRunId": whole.info.run_id})
            if run.info.status == "FINISHED":
                continue
            for key, value in trial["settings"].items():
                client.log_param(run.info.run_id, key, value)
            if "ndcg_at_10" not in run.data.metrics:
                client.log_metric(run.info.run_id, "ndcg_at_10", trial["ndcg_at_10"])
            client.set_terminated(run.info.run_id, "FINISHED")
        client.set_terminated(whole.info.run_id, "FINISHED")
