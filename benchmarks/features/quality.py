"""How well the features rank: candidate recall, and a full retrain beside simple recommenders."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.features import ablation
from benchmarks.features.rivals import RIVALS, Lists, Orders
from benchmarks.learn import years
from pipelines import train
from pipelines.evaluate import holdouts, metrics
from pipelines.evaluate.holdouts import Holdout
from pipelines.shared import columns
from pipelines.shared.models import booster
from pipelines.shared.run import Run

YEAR: Final = 52
"""Weeks of the bundled shop."""
THREADS: Final = 2
ABLATED: Final = 4
"""Weeks on which parts are left out."""
RETRAINED: Final = "retrained"
say = Console(stderr=True, highlight=False)

_STANDING: Final = """
    FROM (
        FROM versions WHERE interval_start {before} '{step}'
        QUALIFY row_number() OVER (PARTITION BY event_key ORDER BY _position DESC) = 1
    )
    WHERE _op <> 'delete' AND shopper_id IS NOT NULL AND item_id IS NOT NULL
"""

_COLD_GROUPS: Final = """
    SELECT n_found / n_relevant FROM groups
    SEMI JOIN (FROM rows WHERE shopper_days_since IS NULL) USING (group_id)
    WHERE n_relevant > 0
"""
_NEW_ITEMS: Final = """
    SELECT count(*), count(*) FILTER (item NOT IN ({bought})),
           (SELECT count(*) FROM rows WHERE label > 0 AND item_novelty_days IS NULL)
    FROM baskets SEMI JOIN groups ON "group" = group_id
"""


@dataclass(frozen=True)
class Week:
    """NDCG@10 of the retrained model and every rival on the same groups."""

    start: str
    groups: int
    recall: float
    """Share of the baskets' items among the candidates, from the manifest."""
    ndcg: dict[str, float]


def measure(home: Path, share: float, weeks: int, every: int, ablate: bool) -> dict[str, Any]:
    """Replay the bundled year, retrain, and score the last weeks.

    Each week's groups are scored by a model that learned everything up to the last retrain, and
    by recommenders given every order known when the week began. NDCG@10 is over all that a basket
    held, also what the candidates missed.
    """
    runs = _replayed(home / f"{share:g}", share)
    with tempfile.TemporaryDirectory() as models:
        found = _summary(list(_weeks(runs, weeks, every, Path(models))))
    found |= cold(runs[runs[0].shop.learning.warm_up_intervals :])
    if ablate:
        say.print(found)
        last = runs[-ABLATED:]
        with _opened(last[0]) as database:
            baskets = [(run, _baskets(database, run)) for run in last]
        worth = ablation.sources(baskets)
        found |= {"families": ablation.families(last), "sources": worth}
    return found | {"share": share, "weeks": weeks, "every": every}


def cold(runs: list[Run]) -> dict[str, Any]:
    """Candidate recall for shoppers of whom nothing is known yet, and of items nobody bought yet.

    `cold_groups` of shoppers without an order in the window, `cold_recall` of these, and
    `new_items_share` of all that the baskets held and `new_items_recall`, of items without one.
    """
    recalls, held, new, met = list[float](), 0, 0, 0
    with _opened(runs[0]) as database:
        for run in runs:
            surface, (step,) = run.shop.surface.name, run.steps
            known = ["shopper_days_since", "item_novelty_days"]
            names = [columns.GROUP, columns.LABEL, *known]
            database.register("rows", run.lake.read(f"groups/{surface}", [step], names))
            database.register("groups", run.lake.read(f"group_index/{surface}", [step]))
            database.register("baskets", _baskets(database, run))
            recalls += [recall for (recall,) in database.sql(_COLD_GROUPS).fetchall()]
            bought = "SELECT item_id" + _STANDING.format(before="<", step=step.key)
            counted = database.sql(_NEW_ITEMS.format(bought=bought)).fetchall()[0]
            held, new, met = held + counted[0], new + counted[1], met + counted[2]
    return {
        "cold_groups": len(recalls),
        "cold_recall": round(statistics.mean(recalls), 4) if recalls else None,
        "new_items_share": round(new / held, 4),
        "new_items_recall": round(met / new, 4),
    }


def _replayed(home: Path, share: float) -> list[Run]:
    """The year's runs, their features made; all of a week is the holdout of what came before it."""
    shelf = years.replayed(home, YEAR, share, THREADS, say)
    learning = shelf.shop.learning.model_copy(
        update={"holdout_days": float(shelf.shop.interval.days)}
    )
    whole = replace(shelf, shop=shelf.shop.model_copy(update={"learning": learning}))
    return [whole.run(step) for step in range(YEAR)]


def _weeks(runs: list[Run], weeks: int, every: int, folder: Path) -> Iterator[Week]:
    model = Path()
    with _opened(runs[0]) as database:
        for number, run in enumerate(runs[-weeks:]):
            if number % every == 0:
                model = train.retrain(run, folder / str(number))
            week = _week(run, model, database)
            say.print(week.start, {name: round(value, 4) for name, value in week.ndcg.items()})
            yield week


@contextmanager
def _opened(run: Run) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the `versions` of the lake's events."""
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        versions = run.lake.read("state/events")
        database.register("versions", versions)
        yield database


def _week(run: Run, model: Path, database: duckdb.DuckDBPyConnection) -> Week:
    cut = run.interval.end - timedelta(days=run.shop.learning.holdout_days)
    held = holdouts.forward(run, cut, set(booster.card(model).features))
    scores = booster.score(model, held.rows, run.settings.threads)
    ndcg = {RETRAINED: metrics.mean(metrics.per_group(held.ranked, scores).ndcg_at_10)}
    orders, baskets = _orders(database, run), _baskets(database, run)
    shoppers = np.unique(held.index[columns.SHOPPER].to_numpy())
    for name, rival in RIVALS.items():
        ndcg[name] = _ndcg(held, baskets, rival(orders, shoppers))
    manifest = run.ledger.manifest("features", run.shop.surface.name, run.interval)
    recall = manifest.details["candidate_recall"] if manifest else float("nan")
    return Week(run.interval.key[:10], held.groups, recall, ndcg)


def _orders(database: duckdb.DuckDBPyConnection, run: Run) -> Orders:
    """Orders committed before the run's interval began."""
    start = f"TIMESTAMPTZ '{run.interval.key}'"
    lines = database.sql(
        f"SELECT shopper_id AS shopper, item_id AS item, group_key AS order, "
        f"min(epoch({start} - event_time)) / 86400.0 AS age "
        + _STANDING.format(before="<", step=run.interval.key)
        + f" AND event_time < {start} GROUP BY ALL ORDER BY ALL"
    )
    return Orders(lines.df())


def _baskets(database: duckdb.DuckDBPyConnection, run: Run) -> pd.DataFrame:
    """group, shopper, item, label of the baskets that arrived in the run's interval."""
    held = database.sql(
        'SELECT group_key AS "group", shopper_id AS shopper, item_id AS item, max(grade) AS label'
        + _STANDING.format(before="=", step=run.interval.key)
        + " GROUP BY ALL"
    )
    found: pd.DataFrame = held.df()
    return found


def _ndcg(held: Holdout, baskets: pd.DataFrame, lists: Lists) -> float:
    """NDCG@10 of lists of shoppers on the groups of a holdout, by the ideal of the whole basket."""
    groups = pd.DataFrame(
        {
            "group": held.index[columns.GROUP].to_pandas(),
            "shopper": held.index[columns.SHOPPER].to_pandas(),
            "number": np.arange(held.groups),
        }
    )
    shown = groups.merge(lists, on="shopper").merge(
        baskets[["group", "item", "label"]], on=["group", "item"], how="left"
    )
    ranked = metrics.Ranked(
        shown["number"].to_numpy(np.int64),
        shown["place"].to_numpy(np.int64),
        shown["label"].fillna(0).to_numpy(np.int64),
        held.ranked.ideal,
        held.ranked.relevant,
    )
    return metrics.mean(metrics.per_group(ranked, -shown["place"].to_numpy(float)).ndcg_at_10)


def _summary(weeks: list[Week]) -> dict[str, Any]:
    means = {name: statistics.mean(week.ndcg[name] for week in weeks) for name in weeks[0].ndcg}
    best = max(RIVALS, key=lambda name: means[name])
    return {
        "recall_at_300": round(statistics.mean(week.recall for week in weeks), 4),
        "ndcg_at_10": round(means[RETRAINED], 4),
        "best_baseline": best,
        "best_baseline_ndcg": round(means[best], 4),
        "over_baseline": round(means[RETRAINED] / means[best] - 1, 4),
        "baselines": {name: round(means[name], 4) for name in RIVALS},
        "groups": sum(week.groups for week in weeks),
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """Print the means as a table."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("NDCG@10, mean of the weeks")
    table.add_column("", justify="right")
    rows = {"full retrain": found["ndcg_at_10"], **found["baselines"]}
    for name, value in sorted(rows.items(), key=lambda row: -row[1]):
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    console.print(
        f"over the best of them: {found['over_baseline']:+.1%} · recall@300 "
        f"{found['recall_at_300']:.3f} · {found['groups']:,} baskets of {found['weeks']} weeks"
    )
    if "families" in found:
        ablation.show(console, found)
