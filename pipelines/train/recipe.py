"""How models are grown: the parameters, and what was measured to choose them.

Chosen on the bundled shop with 13 features of a trial (15 % of the households, weeks 4 to 52,
NDCG@10 of every candidate of the following week, paired over groups):

- trees see 70 % of the features each: +0.005 over all features on a first model; strong
  smoothing of categories: +0.003; L2 of 10 with a rate of 0.08: the best of 20 settings;
- more than 100 first trees, 63 leaves or all negatives bought nothing that could be measured;
- 8 rounds a week at 0.025 without early stopping closed 75 % of the distance between a frozen
  model and a full retrain every week; early stopping on a tenth of the week's groups only 60 %:
  some 30 groups decide by noise. So rounds are fixed, and that tenth draws the learning curve;
- refitting with decay 0.95, then 5 rounds at 0.03, closed 86 %.

On the forward holdouts of weeks 9 to 22 with the stage's own features (2,645 groups): frozen
0.2182, boosting +0.0020 ± 0.0008 (standard error), refitting and boosting +0.0030 ± 0.0010, a
full retrain every second week +0.0045 ± 0.0014. Twice the rate, 12 rounds, decay 0.9 or 8 rounds
after refitting lay within 0.0006 of these.
"""

from __future__ import annotations

from typing import Any, Final

from pipelines.shared.declaration import Learning

MAX_GRADE: Final = 10
FIRST_ROUNDS: Final = 100
BOOST_ROUNDS: Final = 8
BOOST_RATE: Final = 0.025
REFIT_DECAY: Final = 0.95
REFIT_ROUNDS: Final = 5
REFIT_RATE: Final = 0.03
REPLAY_STEPS: Final = 26
"""A first or compacted model learns from at most so many of the grid's steps."""
MIN_GROUPS: Final = 20
"""Fewer new groups wait for the next interval: nothing is lost, `trained_through` stands still."""
CURVE_SHARE: Final = 0.1
"""Share of groups, by a hash of the id, that only draw the learning curve."""


def parameters(learning: Learning, rows: int, threads: int) -> dict[str, Any]:
    """LightGBM's parameters for `rows` training rows.

    LambdaMART: Burges, "From RankNet to LambdaRank to LambdaMART" (2010). The gain of grade g is
    2^g - 1. Histograms are built by column, so that the sums, and with them the model, do not
    depend on the number of threads.
    """
    return {
        "objective": "lambdarank",
        "label_gain": [2**grade - 1 for grade in range(MAX_GRADE + 1)],
        "lambdarank_truncation_level": 20,
        "metric": "ndcg",
        "eval_at": [10],
        "learning_rate": 0.08,
        "num_leaves": 31,
        "min_data_in_leaf": min(100, max(10, rows // 200)),
        "lambda_l2": 10.0,
        "feature_fraction": 0.7,
        "cat_l2": 50.0,
        "cat_smooth": 50.0,
        "seed": learning.seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": threads,
        "verbose": -1,
    }
