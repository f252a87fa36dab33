"""The model registry: an alias that follows the ledger, and verdicts as tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pipelines.shared.errors import PermanentError
from pipelines.shared.ledger import Decision
from pipelines.shared.mlflow_server import (
    INTERVAL_TAG,
    KIND_TAG,
    interval_tag,
    require_reachable,
    translate_errors,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "champion"
DECISION_TAG = "freshrank.decision"


class VersionMissing(PermanentError):
    """The registry lacks a version that the ledger knows."""


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

    Args:
        uri: of the server, or of a store that MLflow opens itself.
        shop, surface: name the experiment and the registered model.
    """

    def __init__(self, uri: str, shop: str, surface: str) -> None:
        self._uri = uri
        self._experiment, self._model = f"{shop}/{surface}", f"{shop}-{surface}"

    def _client(self) -> MlflowClient:
        require_reachable(self._uri)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def follow(self, champion: int | None) -> None:
        """See `Registry.follow`."""
        client = self._client()
        with translate_errors(self._uri):
            standing = self._aliased(client)
            if champion is not None and standing != champion:
                self._point(client, champion)
            elif champion is None and standing is not None:
                client.delete_registered_model_alias(self._model, ALIAS)

    def _point(self, client: MlflowClient, champion: int) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.set_registered_model_alias(self._model, ALIAS, str(champion))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise VersionMissing(
                f"the ledger's champion, version {champion} of {self._model}, is not in MLflow at "
                f"{self._uri}; restore MLflow's database from the same time as the ledger"
            ) from error

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
                client.set_model_version_tag(self._model, str(version), DECISION_TAG, outcome)

    def _mark_run(self, client: MlflowClient, decision: Decision) -> None:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return
        tag = interval_tag(decision.interval)
        query = f"tags.`{INTERVAL_TAG}` = '{tag}' and tags.`{KIND_TAG}` = 'interval'"
        for run in client.search_runs([experiment.experiment_id], query):
            client.set_tag(run.info.run_id, DECISION_TAG, decision.outcome)
