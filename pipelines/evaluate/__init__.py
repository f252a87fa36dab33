"""Evaluate: challengers against the champion, on groups that none of them has learned from.

`run` compares, asks the gate, and shows both in MLflow. The branch reads
`Evaluation.verdict.outcome`.
"""

from pipelines.evaluate.compare import forward_ndcg
from pipelines.evaluate.gate import Verdict
from pipelines.evaluate.report import Evaluation
from pipelines.evaluate.stage import run

__all__ = ["Evaluation", "Verdict", "forward_ndcg", "run"]
