"""The stages of one run in order, without Airflow: what `dags/ranker_update.py` chains."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from pipelines.shared.errors import SourceUnavailable
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings

if TYPE_CHECKING:
    from pipelines.extract import Extracted


def run_interval(
    run: Run,
    say: Callable[[str, str], None],
    grown: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Take one interval through every stage.

    Args:
        run: the interval of a shop.
        say: called with a stage's name and a line about what it did.
        grown: called while a model grows with its rounds done, and with those wanted at most.

    Returns:
        The decision: `outcome`, `reasons`, `champion`.

    Raises:
        SourceUnavailable: a source is away; the tables of the others are extracted and validated.
        FreshrankError: a stage failed; what was durable before stays, a rerun heals.
    """
    from pipelines import evaluate, extract, features, promote, train, validate

    extracted, away = extract_tables(run, list(run.shop.tables), extract.run)
    rows = sum(each.rows for each in extracted)
    say("extract", f"{rows:,} changes in {len(extracted)} tables")
    checked = [validate.run(run, each.table) for each in extracted]
    say("validate", f"{sum(each.quarantined for each in checked):,} rows in quarantine")
    if away:
        raise SourceUnavailable("; ".join(away))
    built = features.run(run).as_dict()
    say("features", f"{built['groups']:,} groups, {built['rows']:,} candidates")
    trained = train.run(run, grown) if grown else train.run(run)
    learned = ", ".join(challenger.strategy for challenger in trained.challengers)
    say("train", learned or str(trained.reason))
    evaluation = evaluate.run(run)
    say("evaluate", evaluation.verdict.reasons[0])
    decide = promote.promote if evaluation.verdict.outcome == "promote" else promote.reject
    decided = decide(run).as_dict()
    say("decide", f"{decided['outcome']}; champion: {decided['champion'] or 'none yet'}")
    return decided


def extract_tables(
    run: Run, tables: Collection[str], one: Callable[[Run, str], Extracted]
) -> tuple[list[Extracted], list[str]]:
    """Extract tables. One source that is away delays its own alone.

    Args:
        one: `extract.run` or `extract.again`.

    Returns:
        What was extracted, and of each source that is away why, and which tables wait.
    """
    done, away = [], []
    for part in run.shop.parts():
        wanted = sorted(part.tables.keys() & set(tables))
        for place, table in enumerate(wanted):
            try:
                done.append(one(run, table))
            except SourceUnavailable as error:
                waiting = ", ".join(wanted[place:])
                away.append(f"source {part.source_name}: {error}; meanwhile {waiting} wait")
                break
    return done, away


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
