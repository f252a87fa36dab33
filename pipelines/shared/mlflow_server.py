"""MLflow as two rooms meet it: quickly, quietly, with one clear error when it is away."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import unquote

from pipelines.shared.errors import TrackingUnavailable
from pipelines.shared.intervals import Interval
from pipelines.shared.settings import explain, without_secrets

INTERVAL_TAG = "freshrank.interval"
KIND_TAG = "freshrank.kind"
STRATEGY_TAG = "freshrank.strategy"
CONTENT_TAG = "freshrank.content_hash"
VERSION_TAG = "freshrank.version"
"""The ledger's number of a version; without it the registry has the version by the same one."""
PROBE_TIMEOUT_S = 5.0
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    # A task that waits is worth less than a task that fails and is retried.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_SERVERS = ("http://", "https://")
_AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


def require_reachable(uri: str) -> None:
    """Ask a server for its health, before the four seconds that importing MLflow costs.

    A store that is no server (a database, a folder) is left to MLflow.

    Raises:
        TrackingUnavailable: nothing answers, or the answer is a server's error.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not uri.startswith(_SERVERS):
        return
    try:
        with urllib.request.urlopen(_health(uri), timeout=PROBE_TIMEOUT_S):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        # A server that wants credentials, or a proxy without the page, is there.
        if error.code < 500:
            return
        raise _unavailable(uri, error) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _unavailable(uri, error) from None


def _health(uri: str) -> urllib.request.Request:
    """The question after a server's health; urllib takes a user in an address for its host."""
    scheme, _, rest = uri.rstrip("/").partition("://")
    user, mark, host = rest.rpartition("@")
    request = urllib.request.Request(f"{scheme}://{host}/health")  # noqa: S310
    if mark:
        credentials = base64.b64encode(unquote(user).encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
    return request


def interval_tag(interval: Interval) -> str:
    """The interval as ISO 8601 writes one: how runs and versions are tagged with it."""
    return f"{interval.key}/{interval.end:%Y-%m-%dT%H:%M:%SZ}"


@contextlib.contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn the errors of an MLflow server that goes away into `TrackingUnavailable`.

    MLflow's own refusals (a wrong name, a missing right) pass through, and so do all errors of a
    store that is no server; neither if its text holds a secret of the address, as MLflow's and its
    drivers' do. The cause is left out, which would show it.
    """
    try:
        yield
    except Exception as error:
        if (uri.startswith(_SERVERS) and _away(error)) or _tells(error, uri):
            raise _unavailable(uri, error) from None
        raise


def _tells(error: BaseException | None, uri: str) -> bool:
    """Whether an error, or one that led to it, holds what `explain` would leave out."""
    while error is not None:
        text = f"{type(error).__name__}: {error}"
        if "@" in uri and explain(error, uri) != text[:200]:
            return True
        error = error.__cause__ or error.__context__
    return False


def _away(error: Exception) -> bool:
    """Whether the server, and not the request, is at fault. Knows no MLflow, to import none."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code) >= 500
    network = type(error).__module__.split(".")[0] in ("requests", "urllib3")
    lost = network or isinstance(error, (ConnectionError, TimeoutError))
    return lost or getattr(error, "error_code", None) in _AWAY


def _unavailable(uri: str, error: Exception) -> TrackingUnavailable:
    return TrackingUnavailable(
        f"MLflow at {without_secrets(uri)} does not answer ({explain(error, uri)}); start it "
        "(`make up`) or mend FRESHRANK_MLFLOW_URI, then clear the task"
    )
