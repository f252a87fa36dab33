"""The branch: it translates a verdict into a task id and does nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseBranchOperator


class PromoteOrReject(BaseBranchOperator):
    """Follow the task named after the verdict's outcome.

    What is neither `promote` nor `reject` in the `verdict.outcome` of what the evaluate task
    returned is an error: the gate fails closed.
    """

    template_fields = ("evaluation",)

    def __init__(self, *, evaluation: Any, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.evaluation = evaluation

    def choose_branch(self, context: Any) -> str:
        """The id of the task to follow."""
        return task_id_of(self.evaluation)


def task_id_of(evaluation: Mapping[str, Any]) -> str:
    """Translate an evaluation's verdict into a task id.

    Raises:
        ValueError: the outcome is neither `promote` nor `reject`.
    """
    outcome = evaluation["verdict"]["outcome"]
    if outcome not in ("promote", "reject"):
        raise ValueError(f"verdict.outcome is {outcome!r}; expected 'promote' or 'reject'")
    return str(outcome)
