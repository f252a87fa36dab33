"""Evaluations in MLflow: one run an interval, a child run and a version a challenger.

Everything is looked up by its tags first, so a rerun completes what a killed run began and adds
nothing: a metric that the run has is not logged again, unless its value has changed. The order is:
runs, model files, version (its tags in the same call), the run's end, the verdict and, with it, the
mark that all is there.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipelines.evaluate.tracking.tracker import DataVersion, ModelReport, Report
from pipelines.shared.mlflow_server import (
    CONTENT_TAG,
    INTERVAL_TAG,
    KIND_TAG,
    STRATEGY_TAG,
    VERSION_TAG,
    interval_tag,
    require_reachable,
    translate_errors,
)
from pipelines.shared.servable import packaging

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as TrackedRun

DONE_TAG = "freshrank.recorded"
SHOWN_FEATURES = 25


class MlflowTracker:
    """The tracking server and registry at a URI, or a store there that MLflow opens itself."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def check(self) -> None:
        """See `Tracker.check`."""
        require_reachable(self._uri)

    def record(self, report: Report) -> Mapping[str, int]:
        """See `Tracker.record`."""
        self.check()
        import mlflow
        from mlflow import MlflowClient

        if not self._uri.startswith("http"):
            # A store without a server looks up its own models through the process's setting.
            mlflow.set_tracking_uri(self._uri)
        # Its warnings (no pip in the environment, an example was checked) help nobody here.
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        with TemporaryDirectory(prefix="freshrank-") as folder, translate_errors(self._uri):
            client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            return _Recording(client, report, folder, self._uri).record()


class _Recording:
    """One report on its way into MLflow."""

    def __init__(self, client: MlflowClient, report: Report, folder: str, uri: str) -> None:
        self.client, self.report, self.folder, self.uri = client, report, folder, uri
        self.experiment = self._experiment()
        self.runs = list(
            client.search_runs(
                [self.experiment],
                f"tags.`{INTERVAL_TAG}` = '{interval_tag(report.interval)}'",
                order_by=["attributes.start_time ASC"],
            )
        )

    def record(self) -> dict[str, int]:
        report = self.report
        parent = self._run("interval", f"{report.interval.start:%Y-%m-%d}", {})
        done = parent.data.tags.get(DONE_TAG) == report.content_hash
        # Earlier versions set the mark first: a run that was killed there stayed unfinished.
        if done and parent.info.status == "FINISHED":
            return {model.strategy: self._known_version(model) for model in report.models}
        self._log(parent, report.metrics, report.params, report.data)
        versions = {model.strategy: self._challenger(parent, model) for model in report.models}
        self._delete_stale_runs(parent)
        self._finish(parent, {**report.tags, DONE_TAG: report.content_hash})
        return versions

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self.report.experiment
        known = self.client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        # Without a server, MLflow would keep its files in the working directory.
        place = None if self.uri.startswith("http") else self.report.artifacts.as_uri()
        try:
            return str(self.client.create_experiment(name, artifact_location=place))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(self.client.get_experiment_by_name(name).experiment_id)

    def _run(self, kind: str, name: str, tags: dict[str, str]) -> TrackedRun:
        wanted = {KIND_TAG: kind, INTERVAL_TAG: interval_tag(self.report.interval), **tags}
        for run in self.runs:
            if wanted.items() <= run.data.tags.items():
                return run
        now = int(time.time() * 1000)
        run = self.client.create_run(self.experiment, now, tags=wanted, run_name=name)
        self.runs.append(run)
        return run

    def _challenger(self, parent: TrackedRun, model: ModelReport) -> int:
        tags = {
            "mlflow.parentRunId": parent.info.run_id,
            STRATEGY_TAG: model.strategy,
            CONTENT_TAG: model.content_hash,
        }
        run = self._run("challenger", f"{parent.info.run_name} {model.strategy}", tags)
        card = model.card
        params = {
            "strategy": model.strategy,
            "parent": str(model.parent),
            "trained_through": model.trained_through,
            "trees": str(card.trees),
            "groups": str(card.groups),
            "features": str(len(card.features)),
            **{_param(name): str(value) for name, value in card.params.items()},
        }
        self._log(run, model.metrics, params, self.report.data)
        self._plot(run, model)
        version = self._version(run, model)
        self._finish(run, {VERSION_TAG: str(version)})
        return version

    def _plot(self, run: TrackedRun, model: ModelReport) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        by_share = sorted(model.importance.items(), key=lambda entry: (entry[1], entry[0]))
        largest = by_share[-SHOWN_FEATURES:]
        figure = Figure(figsize=(7, 1.2 + 0.25 * max(len(largest), 1)))
        FigureCanvasAgg(figure)
        # A layout that measures every label would take longer than all the rest of the drawing.
        axes = figure.add_axes((0.3, 0.1, 0.66, 0.84))
        axes.barh([name for name, _ in largest], [share for _, share in largest])
        meaning = "share of the loss saved by the feature's splits"
        axes.set(title="Feature importance", xlabel=meaning)
        folder = self._folder(f"plots-{model.strategy}")
        figure.savefig(folder / "feature_importance.png", dpi=80, metadata={"Software": None})
        self.client.log_artifacts(run.info.run_id, str(folder), "plots")

    def _version(self, run: TrackedRun, model: ModelReport) -> int:
        if known := self._find_version(model):
            return known
        self._registered_model()
        folder = self._folder(f"model-{model.strategy}")
        model_id = packaging.logged_model(
            self.client, self.experiment, model.strategy, run.info.run_id, model,
            self.report.sample, folder,
        )  # fmt: skip
        version = self.client.create_model_version(
            self.report.model_name,
            source=f"models:/{model_id}",
            run_id=run.info.run_id,
            model_id=model_id,
            tags=self._version_tags(model),
        )
        return model.version or int(version.version)

    def _version_tags(self, model: ModelReport) -> dict[str, str]:
        return {
            INTERVAL_TAG: interval_tag(self.report.interval),
            STRATEGY_TAG: model.strategy,
            CONTENT_TAG: model.content_hash,
            "freshrank.parent": str(model.parent),
            "freshrank.trained_through": model.trained_through,
            "freshrank.trees": str(model.card.trees),
            **({VERSION_TAG: str(model.version)} if model.version else {}),
            **{f"freshrank.data.{data.name}": data.digest for data in self.report.data},
        }

    def _find_version(self, model: ModelReport) -> int | None:
        name, interval = self.report.model_name, interval_tag(self.report.interval)
        wanted = {STRATEGY_TAG: model.strategy, CONTENT_TAG: model.content_hash}
        versions = self.client.search_model_versions(
            f"name = '{name}' and tag.`{INTERVAL_TAG}` = '{interval}'"
        )
        numbers = [
            int(each.tags.get(VERSION_TAG, each.version))
            for each in versions
            if wanted.items() <= each.tags.items()
        ]
        return min(numbers, default=None)

    def _known_version(self, model: ModelReport) -> int:
        # A person may have deleted a version; it is then registered again.
        return self._find_version(model) or self._challenger(self._run("interval", "", {}), model)

    def _registered_model(self) -> None:
        from mlflow.exceptions import MlflowException

        about = f"Ranker of the surface {self.report.surface!r} of the shop {self.report.shop!r}"
        try:
            self.client.create_registered_model(self.report.model_name, description=about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _log(
        self,
        run: TrackedRun,
        metrics: Mapping[str, float],
        params: Mapping[str, str],
        data: tuple[DataVersion, ...],
    ) -> None:
        from mlflow.entities import Metric, Param

        now, step = int(time.time() * 1000), self.report.ordinal
        # A metric logged again at its step would be a second point of the curve.
        points = [
            Metric(name, value, now, step)
            for name, value in metrics.items()
            if math.isfinite(value) and run.data.metrics.get(name) != value
        ]
        # A param cannot be changed; a rerun logs those that a killed run left out.
        missing = [
            Param(name, text) for name, text in params.items() if name not in run.data.params
        ]
        for start in range(0, max(len(points), 1), 900):
            part = points[start : start + 900]
            self.client.log_batch(run.info.run_id, part, missing if start == 0 else [])
        self.client.log_inputs(run.info.run_id, [_dataset(each) for each in data])

    def _finish(self, run: TrackedRun, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        # Before the mark that all is there, after which a rerun looks no more.
        self.client.set_terminated(run.info.run_id, "FINISHED")
        self.client.log_batch(
            run.info.run_id, tags=[RunTag(name, text[:5000]) for name, text in tags.items()]
        )

    def _delete_stale_runs(self, parent: TrackedRun) -> None:
        """Delete the runs of challengers that an earlier attempt trained and this one did not."""
        known = {(model.strategy, model.content_hash) for model in self.report.models}
        for run in self.runs:
            tags = run.data.tags
            if run.info.run_id == parent.info.run_id:
                continue
            if (tags.get(STRATEGY_TAG), tags.get(CONTENT_TAG)) not in known:
                self.client.delete_run(run.info.run_id)

    def _folder(self, name: str) -> Path:
        folder = Path(self.folder) / name
        folder.mkdir(exist_ok=True)
        return folder


def _param(name: str) -> str:
    """What LightGBM was told goes under its name; what was done with its trees does not."""
    return name if name.startswith("blend_") else f"lightgbm.{name}"


def _dataset(data: DataVersion) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    place = {
        "path": data.uri,
        "delta_table_version": data.delta_version,
        "intervals": [data.first.key, data.last.key],
    }
    dataset = Dataset(data.name, data.digest[:36], "delta_table", json.dumps(place))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.name)])
