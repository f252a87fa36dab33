"""The model registry: an alias that follows the ledger, and verdicts as tags."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from pipelines.shared.errors import PermanentError
from pipelines.shared.ledger import Decision, Ledger, Version
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
from pipelines.shared.models import booster
from pipelines.shared.servable.packaging import StoredModel, logged_model
from pipelines.shared.settings import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "champion"
DECISION_TAG = "freshrank.decision"


_log = logging.getLogger(__name__)


class VersionMissing(PermanentError):
    """The registry lacks a version that the ledger knows, and the lake has no model of it."""


@dataclass(frozen=True)
class StoredVersions:
    """The versions of a ledger, and the shop's folder of the lake, which has their models."""

    ledger: Ledger
    root: Path

    def find(self, number: int) -> tuple[Version, StoredModel] | None:
        """A version and its model; None where the ledger or the lake lacks it."""
        for version in self.ledger.versions():
            path = self.root / version.artifact
            if version.version == number and path.is_file():
                model = StoredModel(
                    version.strategy, path, booster.card(path), version.content_hash
                )
                return version, model
        return None


class Registry(Protocol):
    """The port to the place where other systems look up the champion."""

    def follow(self, champion: int | None) -> None:
        """Point the alias at a version, or delete it where there is no champion.

        Raises:
            TrackingUnavailable: the registry does not answer; a rerun heals.
        """

    def mark(self, decision: Decision, versions: dict[str, int]) -> None:
        """Tag the interval's run and versions with the decision.

        Args:
            versions: strategy → version of the interval's challengers.

        Raises:
            TrackingUnavailable: the registry does not answer; a rerun heals.
        """


class MlflowRegistry:
    """The registry of an MLflow server.

    A version that a person deleted there is registered again from the lake. MLflow gives it another
    number; the tag `freshrank.version` says which of the ledger's it is.

    Args:
        uri: of the server, or of a store that MLflow opens itself.
        shop, surface: name the experiment and the registered model.
        stored: where a version's model is found again; without it none is registered again.
    """

    def __init__(
        self, uri: str, shop: str, surface: str, stored: StoredVersions | None = None
    ) -> None:
        self._uri, self._stored = uri, stored
        self._experiment, self._model = f"{shop}/{surface}", f"{shop}-{surface}"

    def _client(self) -> MlflowClient:
        require_reachable(self._uri)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def follow(self, champion: int | None) -> None:
        """See `Registry.follow`."""
        client = self._client()
        with translate_errors(self._uri):
            wanted = None
            if champion is not None:
                wanted = self._number(client, champion) or self._register(client, champion)
            standing = self._aliased(client)
            if wanted is not None and standing != wanted:
                client.set_registered_model_alias(self._model, ALIAS, str(wanted))
            elif wanted is None and standing is not None:
                client.delete_registered_model_alias(self._model, ALIAS)

    def fault(self, champion: int | None) -> str:
        """How the registry differs from the ledger's champion; empty where it does not.

        Raises:
            TrackingUnavailable: the registry does not answer.
        """
        client = self._client()
        with translate_errors(self._uri):
            wanted = None if champion is None else self._number(client, champion)
            standing = self._aliased(client)
        if champion is not None and wanted is None:
            return f"version {champion} of {self._model}, the ledger's champion, is not in MLflow"
        if standing != wanted:
            return (
                f"the alias {ALIAS} of {self._model} is at {_named(standing)} in MLflow, and the "
                f"ledger's champion is there {_named(wanted)}"
            )
        return ""

    def _number(self, client: MlflowClient, version: int) -> int | None:
        """The registry's number of a version of the ledger; None where it lacks it."""
        from mlflow.exceptions import MlflowException

        query = f"name = '{self._model}' and tag.`{VERSION_TAG}` = '{version}'"
        if tagged := client.search_model_versions(query):
            return max(int(each.version) for each in tagged)
        try:
            same = client.get_model_version(self._model, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return None if VERSION_TAG in same.tags else version

    def _register(self, client: MlflowClient, number: int) -> int:
        """Register a version of the ledger again, from the lake."""
        found = self._stored.find(number) if self._stored else None
        if found is None:
            raise VersionMissing(
                f"the ledger's champion, version {number} of {self._model}, is not in MLflow at "
                f"{without_secrets(self._uri)}, and its model is not in the lake; bring the folder "
                "`models` of the shop back from a backup of the lake, then clear the task"
            )
        if not self._uri.startswith("http"):
            import mlflow

            # A store without a server looks up its own models through the process's setting.
            mlflow.set_tracking_uri(self._uri)
        version, model = found
        experiment = self._experiment_id(client)
        tags = {
            INTERVAL_TAG: interval_tag(version.interval),
            STRATEGY_TAG: version.strategy,
            CONTENT_TAG: version.content_hash,
        }
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        runs = client.search_runs([experiment], query)
        run_id = runs[0].info.run_id if runs else None
        self._create_model(client)
        with TemporaryDirectory(prefix="freshrank-") as folder:
            model_id = logged_model(
                client, experiment, f"version-{number}", run_id, model, pa.table({}), Path(folder)
            )
        registered = client.create_model_version(
            self._model,
            source=f"models:/{model_id}",
            run_id=run_id,
            model_id=model_id,
            tags=tags
            | {
                VERSION_TAG: str(number),
                DECISION_TAG: "promote",
                "freshrank.parent": str(version.parent),
                "freshrank.trained_through": f"{version.trained_through:%Y-%m-%dT%H:%M:%SZ}",
                "freshrank.trees": str(version.trees),
            },
        )
        _log.warning(
            "version %s of %s was not in MLflow: registered again from the lake, as version %s",
            number, self._model, registered.version,
        )  # fmt: skip
        return int(registered.version)

    def _experiment_id(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is not None:
            return str(experiment.experiment_id)
        assert self._stored is not None  # noqa: S101 (its model was found)
        # Without a server, MLflow would keep its files in the working directory.
        place = None if self._uri.startswith("http") else (self._stored.root / "mlflow").as_uri()
        return str(client.create_experiment(self._experiment, artifact_location=place))

    def _create_model(self, client: MlflowClient) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self._model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _aliased(self, client: MlflowClient) -> int | None:
        from mlflow.exceptions import MlflowException

        try:
            model = client.get_registered_model(self._model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        version = model.aliases.get(ALIAS)
        return int(version) if version is not None else None

    def mark(self, decision: Decision, versions: dict[str, int]) -> None:
        """See `Registry.mark`."""
        client = self._client()
        with translate_errors(self._uri):
            self._mark_run(client, decision)
            for version in versions.values():
                outcome = "promote" if version == decision.promoted else "reject"
                if number := self._number(client, version):  # A person may have deleted it.
                    client.set_model_version_tag(self._model, str(number), DECISION_TAG, outcome)

    def _mark_run(self, client: MlflowClient, decision: Decision) -> None:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return
        tag = interval_tag(decision.interval)
        query = f"tags.`{INTERVAL_TAG}` = '{tag}' and tags.`{KIND_TAG}` = 'interval'"
        for run in client.search_runs([experiment.experiment_id], query):
            client.set_tag(run.info.run_id, DECISION_TAG, decision.outcome)


def _named(version: int | None) -> str:
    return "none" if version is None else f"version {version}"
