"""Whether Airflow retries a task, by the type of its error, and when it gives one up."""

from datetime import timedelta
from typing import Any, Final

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

RETRIES: Final[dict[str, Any]] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=20),
    "execution_timeout": timedelta(hours=12),
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
"""Arguments for every task: a permanent error fails at once, anything else is tried again.

One attempt ends after 12 hours: a task that hangs on a server which never answers would hold the
model chain's only slot for ever. The longest task is a first snapshot, and in 12 hours the slowest
capture reads a thousand million rows. Four attempts end within two days, before the next week's
run. `open_interval` makes a new attempt each time it looks whether it is its turn.
"""
