"""Training: challengers that learn only what the champion has not seen.

Entry points: `run` for the loop, `retrain` for the reference that learns everything anew.
"""

from pipelines.shared.challengers import Challenger, Trained
from pipelines.train.stage import retrain, run

__all__ = ["Challenger", "Trained", "retrain", "run"]
