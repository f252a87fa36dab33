"""Evaluate: challengers against the champion, on groups that none of them has learned from.

`run` scores, compares, judges, and shows all of it in MLflow. The branch reads
`Evaluation.verdict.outcome`.
"""

from pipelines.evaluate.evaluation import Evaluation
from pipelines.evaluate.gate import Verdict
from pipelines.evaluate.stage import run

__all__ = ["Evaluation", "Verdict", "run"]
