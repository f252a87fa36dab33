"""The stages of one run in order, without Airflow: what `dags/ranker_update.py` chains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings


def run_interval(run: Run, say: Callable[[str, str], None]) -> dict[str, Any]:
    """Take one interval through every stage.

    Args:
        run: the interval of a shop.
        say: called with a stage's name and a line about what it did.

    Returns:
        The decision: `outcome`, `reasons`, `champion`.

    Raises:
        FreshrankError: a stage failed; what was durable before stays, a rerun heals.
    """
    from pipelines import evaluate, extract, features, promote, train, validate

    tables = sorted(run.shop.tables)
    rows = sum(extract.run(run, table).rows for table in tables)
    say("extract", f"{rows:,} changes in {len(tables)} tables")
    checked = [validate.run(run, table) for table in tables]
    say("validate", f"{sum(each.quarantined for each in checked):,} rows in quarantine")
    built = features.run(run).as_dict()
    say("features", f"{built['groups']:,} groups, {built['rows']:,} candidates")
    trained = train.run(run)
    learned = ", ".join(challenger.strategy for challenger in trained.challengers)
    say("train", learned or str(trained.reason))
    evaluation = evaluate.run(run)
    say("evaluate", evaluation.verdict.reasons[0])
    decide = promote.promote if evaluation.verdict.outcome == "promote" else promote.reject
    decided = decide(run).as_dict()
    say("decide", f"{decided['outcome']}; champion: {decided['champion'] or 'none yet'}")
    return decided


def publish(run: Run) -> dict[str, Any]:
    """Score every shopper's candidates with the champion and replace the published lists."""
    from pipelines import features, publish

    features.serve(run)
    return publish.run(run).as_dict()


def runs(settings: Settings, shop: str, interval: Interval, *, as_one: bool) -> list[Run]:
    """The runs of a stretch of time: one a step of the shop's grid, or all as one."""
    whole = Run.of(settings, shop, interval)
    if as_one:
        return [whole]
    return [Run(settings, whole.shop, step) for step in whole.steps]
