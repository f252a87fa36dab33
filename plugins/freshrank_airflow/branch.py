"""The branch: a verdict becomes a task id, and nothing else happens here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseBranchOperator


class PromoteOrReject(BaseBranchOperator):
    """Follow the task named after the verdict's outcome.

    Args:
        evaluation: what the evaluate task returned; its `verdict.outcome` is `promote` or
            `reject`. Anything else is an error: the gate fails closed.
    """

    template_fields = ("evaluation",)

    def __init__(self, *, evaluation: Any, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.evaluation = evaluation

    def choose_branch(self, context: Any) -> str:
        """The id of the task to follow."""
        return chosen(self.evaluation)


def chosen(evaluation: Mapping[str, Any]) -> str:
    """Translate an evaluation's verdict into a task id.

    Raises:
        ValueError: the outcome is neither `promote` nor `reject`.
    """
    outcome = evaluation["verdict"]["outcome"]
    if outcome not in ("promote", "reject"):
        raise ValueError(f"verdict.outcome is {outcome!r}; expected 'promote' or 'reject'")
    return str(outcome)
