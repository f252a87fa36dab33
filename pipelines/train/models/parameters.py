"""Parameters of training, and what was measured to choose them.

Chosen on the bundled shop with 13 features of a trial (15 % of the households, weeks 4 to 52,
NDCG@10 of every candidate of the following week, paired over groups):

- trees see 70 % of the features each: +0.005 over all features on a first model; strong
  smoothing of categories: +0.003; L2 of 10 with a rate of 0.08: the best of 20 settings;
- more than 100 first trees, 63 leaves or all negatives bought nothing that could be measured on
  that little data; on 3.7 million rows (all households, 26 weeks; today's features) 300 trees gave
  +1.2 % (0.2 % standard error) over 100, so that their number grows with the rows (`first_rounds`);
- bins from 50,000 rows instead of 200,000 rank as well and take two thirds of the time;
- early stopping on a tenth of a week's groups did worse than a fixed number of trees: some 30
  groups decide by noise.

A compaction's 40 trees at 0.2 on 24 intervals, its mean with the parent, and what else was tried,
stand in docs/experiments/learning.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pipelines.shared.declaration import Learning
from pipelines.train.data.examples import MAX_GRADE

FIRST_ROUNDS: Final = 100
"""Trees of a first model, at least; the account counts a full retrain as so many."""
MOST_FIRST_ROUNDS: Final = 300
ROWS_A_TREE: Final = 12_000
COMPACT_ROUNDS: Final = 40
COMPACT_RATE: Final = 0.2
ADAPT_DECAY: Final = 0.6
ADAPT_ROUNDS: Final = 20
ADAPT_RATE: Final = 0.08
BLENDED_TREES: Final = 2 * COMPACT_ROUNDS
"""Of a blend: the new ones and as many of the parent's first, which need not be a whole model."""
MIN_GROUPS: Final = 20
"""Fewer new groups wait for the next interval: nothing is lost, `trained_through` stands still."""


def first_rounds(rows: int) -> int:
    """How many trees a first model has, by its training rows."""
    return min(MOST_FIRST_ROUNDS, max(FIRST_ROUNDS, rows // ROWS_A_TREE))


def rounds(learning: Learning, span: int) -> int:
    """How many trees continue a model for new groups of so many intervals."""
    return min(learning.refit_rounds * span, learning.boost_rounds)


def parameters(
    learning: Learning, features: Sequence[str], rows: int, threads: int
) -> dict[str, Any]:
    """LightGBM's parameters for `rows` training rows with these features.

    LambdaMART: Burges, "From RankNet to LambdaRank to LambdaMART" (2010). The gain of grade g is
    2^g - 1. Histograms are built by column, so that the sums, and with them the model, do not
    depend on the number of threads.
    """
    params: dict[str, Any] = {
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
        "bin_construct_sample_cnt": 50_000,
        "cat_l2": 50.0,
        "cat_smooth": 50.0,
        "seed": learning.seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": threads,
        "verbose": -1,
    }
    if learning.monotone:
        params["monotone_constraints"] = [learning.monotone.get(name, 0) for name in features]
    return params
