"""MLflow as two rooms meet it: quickly, quietly, with one clear error when it is away."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator

from pipelines.shared.errors import TrackingUnavailable
from pipelines.shared.intervals import Interval

INTERVAL_TAG = "freshrank.interval"
KIND_TAG = "freshrank.kind"
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
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_TIMEOUT_S):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        # A server that wants credentials, or a proxy without the page, is there.
        if error.code < 500:
            return
        raise _unavailable(uri, error) from error
    except (OSError, ValueError) as error:
        raise _unavailable(uri, error) from error


def interval_tag(interval: Interval) -> str:
    """The interval as ISO 8601 writes one: how runs and versions are tagged with it."""
    return f"{interval.key}/{interval.end:%Y-%m-%dT%H:%M:%SZ}"


@contextlib.contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn the errors of an MLflow server that goes away into `TrackingUnavailable`.

    MLflow's own refusals (a wrong name, a missing right) pass through, and so do all errors of a
    store that is no server.
    """
    try:
        yield
    except Exception as error:
        if not uri.startswith(_SERVERS) or not _away(error):
            raise
        raise _unavailable(uri, error) from error


def _away(error: Exception) -> bool:
    """Whether the server, and not the request, is at fault. Knows no MLflow, to import none."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code) >= 500
    network = type(error).__module__.split(".")[0] in ("requests", "urllib3")
    lost = network or isinstance(error, (ConnectionError, TimeoutError))
    return lost or getattr(error, "error_code", None) in _AWAY


def _unavailable(uri: str, error: Exception) -> TrackingUnavailable:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        where = make_url(uri).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        where = uri
    return TrackingUnavailable(
        f"MLflow at {where} does not answer ({type(error).__name__}: {str(error)[:200]}); start it "
        "(`make up`) or mend FRESHRANK_MLFLOW_URI, then clear the task"
    )
