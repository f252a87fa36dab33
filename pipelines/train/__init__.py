"""Training: challengers that learn only what the champion has not seen.

Entry points: `run` for the loop, `retrain` for the reference that learns everything, `tune`
for an occasional search for better settings.
"""

from pipelines.shared.models.challengers import Challenger, Trained
from pipelines.train.stage import retrain, run
from pipelines.train.tuning import Study, tune

__all__ = ["Challenger", "Study", "Trained", "retrain", "run", "tune"]
