"""Whether Airflow retries a task, by the type of its error."""

from datetime import timedelta
from typing import Any, Final

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

RETRIES: Final[dict[str, Any]] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=20),
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule(
                exception="pipelines.shared.errors.PermanentError",
                action=RetryAction.FAIL,
                reason="the same call will fail again until a person changes something",
            ),
            RetryRule(
                exception="pipelines.shared.errors.TransientError",
                action=RetryAction.RETRY,
                retry_delay=timedelta(seconds=20),
                reason="a server was away; the same call may succeed",
            ),
        ]
    ),
}
"""Arguments for every task: a permanent error fails at once, anything else is tried again."""
