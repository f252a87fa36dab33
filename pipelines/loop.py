"""The stages of one run in order, without Airflow, as `dags/ranker_update.py` chains them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipelines.shared.declaration import Shop
from pipelines.shared.errors import SourceUnavailable
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation, Run
from pipelines.shared.settings import Settings
from pipelines.shared.turn import held

if TYPE_CHECKING:
    from pipelines.extract import Extracted
    from pipelines.train.tuning import Study


def run_interval(
    run: Run,
    say: Callable[[str, str], None],
    grown: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Wait for the interval's turn, and take it through every stage; returns the decision.

    `say` gets a stage's name and a line about what it did; `grown`, while a model grows, the rounds
    done and the most rounds wanted.

    Raises:
        TurnTaken: another run was at work for too long; nothing was begun.
        IntervalOverlaps: it overlaps an interval that is decided or running; nothing was begun.
        SourceUnavailable: a source is away; the other sources' tables are extracted and validated.
        FreshrankError: a stage failed; what was durable before stays, a rerun heals.
    """
    with held(run, lambda line: say("turn", line)) as ready:
        return _stages(ready, say, grown)


def _stages(
    run: Run, say: Callable[[str, str], None], grown: Callable[[int, int], None] | None
) -> dict[str, Any]:
    from pipelines import evaluate, extract, features, promote, train, validate

    extracted, away = extract_tables(run, list(run.shop.tables), extract.run)
    rows = sum(each.rows for each in extracted)
    say("extract", f"{rows:,} changes in {len(extracted)} tables")
    checked = [validate.run(run, each.table) for each in extracted]
    say("validate", f"{sum(each.quarantined for each in checked):,} rows in quarantine")
    require_no_source_away(away)
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
    """Extract tables; a source that is away delays its own tables alone.

    `one` is `extract.run` or `extract.reextract`. Returns what was extracted, and for each source
    that is away a line with the cause and its tables.
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


def require_no_source_away(away: Collection[str]) -> None:
    """Ask for a retry where a source was away.

    Raises:
        SourceUnavailable: one was; the message says which and why.
    """
    if away:
        raise SourceUnavailable("; ".join(away))


def at_each_source(
    installation: Installation, action: Callable[[str, Shop], object]
) -> Iterator[Shop]:
    """Install or remove change capture at every source that answers; yields its part when done.

    Raises:
        SourceUnavailable: a source was away; the others are done.
    """
    away = []
    for part in installation.shop.parts():
        try:
            action(installation.settings.connection(part.source.connection), part)
        except SourceUnavailable as error:
            away.append(f"source {part.source_name}: {error}")
        else:
            yield part
    require_no_source_away(away)


def publish(run: Run) -> dict[str, Any]:
    """Score every shopper's candidates with the champion and replace the published lists."""
    from pipelines import features, publish

    features.serve(run)
    return publish.run(run).as_dict()


def tune(run: Run, trials: int, intervals: int, progress: Callable[[int, int], None]) -> Study:
    """Search for better settings of learning, and record the search in MLflow."""
    from pipelines import train
    from pipelines.evaluate.tracking.studies import record_study

    study = train.tune(run, trials, intervals, run.lake.local_root / "tuning", progress)
    experiment = f"{run.shop.shop}/{run.shop.surface.name}"
    each = [asdict(trial) for trial in study.trials]
    record_study(run.settings.mlflow_uri.get_secret_value(), experiment, study.name, each)
    return study


def runs(settings: Settings, shop: str, interval: Interval, *, as_one: bool) -> list[Run]:
    """The runs of a stretch of time: one a step of the shop's grid, or all as one.

    Raises:
        IntervalOverlaps: one of them overlaps an interval that is decided and is not the same.
    """
    whole = Run.of(settings, shop, interval)
    wanted = [whole] if as_one else [Run(settings, whole.shop, step) for step in whole.steps]
    for each in wanted:
        whole.ledger.turns.require_apart(each.interval)
    return wanted
