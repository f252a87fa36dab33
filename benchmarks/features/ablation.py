"""What each feature family and each candidate source is worth: the ranker without it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pandas as pd
import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipelines.evaluate import holdouts, metrics
from pipelines.features import candidates, catalogue
from pipelines.features.engines import engine
from pipelines.features.known import read_known
from pipelines.features.moment import AsOf
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.declaration import CandidateSource
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run
from pipelines.train import plan, strategies
from pipelines.train.data import groups
from pipelines.train.data.examples import Examples
from pipelines.train.data.groups import Catalogue
from pipelines.train.material import Material
from pipelines.train.models import boosting

WHOLE: Final = "all"
say = Console(stderr=True, highlight=False)

Choice = tuple[str, str]
"""A source, and whether it stands alone or is left out."""


def families(runs: Sequence[Run]) -> dict[str, float]:
    """NDCG@10 of first models that lack one family of features each.

    `all` and each family → mean of the runs, weeks in a row; the models learned the window before.
    """
    of_family: dict[str, set[str]] = {WHOLE: set()}
    for feature in catalogue.catalogue(Layout(runs[0].shop)):
        of_family.setdefault(feature.family, set()).add(feature.name)
    steps = plan.steps(runs[0])
    every = Catalogue.of(steps[-1])
    kept = {
        family: tuple(name for name in every.features if name not in gone)
        for family, gone in of_family.items()
    }
    window = plan.window(runs[0], steps)
    read = groups.load(runs[0], groups.select(runs[0], window, None, plan.cut(runs[0])), every)
    models = {family: _trained(runs[0], read, names, family) for family, names in kept.items()}
    found: dict[str, list[float]] = {family: [] for family in models}
    for run in runs:
        cut = run.interval.end - timedelta(days=run.shop.learning.holdout_days)
        held = holdouts.forward(run, cut, set(every.features))
        for family, model in models.items():
            known = held.rows.select(kept[family]).combine_chunks()
            scores = boosting.scores(model, known, run.settings.threads)
            ndcg = metrics.mean(metrics.per_group(held.ranked, scores).ndcg_at_10)
            found[family].append(ndcg)
    return {family: statistics.mean(values) for family, values in found.items()}


def _trained(run: Run, read: Examples, names: tuple[str, ...], family: str) -> str:
    """The text of a first model on these features alone."""
    say.print(f"learns without {family}" if family != WHOLE else "learns from all features")
    fewer = replace(read, features=read.features.select(names))
    return strategies.fresh(Material.of(run, fewer)).text


def sources(weeks: Sequence[tuple[Run, pd.DataFrame]]) -> dict[str, dict[str, float]]:
    """Candidate recall of each source alone, and of all the others together.

    A week is a run and the baskets of its interval: group, shopper, item. `all` and each source →
    `alone` and `without`: the share of a basket's items among at most `max_candidates`, averaged
    over baskets, then over weeks.
    """
    declared = weeks[0][0].shop.features.sources
    choices: dict[Choice, tuple[CandidateSource, ...]] = {(WHOLE, "alone"): declared}
    for name in declared:
        choices[name, "alone"] = (name,)
        choices[name, "without"] = tuple(each for each in declared if each != name)
    found: dict[Choice, list[float]] = {choice: [] for choice in choices}
    for run, baskets in weeks:
        for choice, recall in _recalls(run, baskets, choices):
            found[choice].append(recall)
        say.print(f"sources of {run.interval.key[:10]}")
    recalls: dict[str, dict[str, float]] = {}
    for (source, how), values in found.items():
        recalls.setdefault(source, {})[how] = statistics.mean(values)
    return recalls


def _recalls(
    run: Run, baskets: pd.DataFrame, choices: dict[Choice, tuple[CandidateSource, ...]]
) -> Iterator[tuple[Choice, float]]:
    step, layout = run.steps[0], Layout(run.shop)
    before = Interval(step.start - run.shop.grid.step, step.start)
    some = pa.table({columns.SHOPPER: pa.array(baskets["shopper"].unique(), layout.shopper)})
    pair = pa.schema({columns.SHOPPER: layout.shopper, columns.ITEM: layout.item})
    with engine(run.settings) as opened:
        known = read_known(run, opened, layout, AsOf(step.start, before))
        for choice, named in choices.items():
            features = run.shop.features.model_copy(update={"sources": named})
            changed = Layout(run.shop.model_copy(update={"features": features}))
            with opened.scope():
                most = run.shop.surface.max_candidates
                proposed = candidates.propose(
                    opened, known, changed, opened.load(some), most, known.offered
                )
                listed = opened.arrow(proposed.pairs, pair).to_pandas()
            met = baskets.merge(
                listed.set_axis(["shopper", "item"], axis=1), how="left", indicator=True
            )
            yield choice, float((met["_merge"] == "both").groupby(met["group"]).mean().mean())


def show(console: Console, found: dict[str, Any]) -> None:
    """Both tables."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("features without")
    for name in ("NDCG@10", "change"):
        table.add_column(name, justify="right")
    whole = found["families"][WHOLE]
    for family, ndcg in sorted(found["families"].items(), key=lambda row: row[1]):
        change = "" if family == WHOLE else f"{ndcg / whole - 1:+.1%}"
        table.add_row("nothing" if family == WHOLE else family, f"{ndcg:.4f}", change)
    console.print(table)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("candidates from")
    for name in ("recall alone", "of all others"):
        table.add_column(name, justify="right")
    for source, recall in sorted(found["sources"].items(), key=lambda row: -row[1]["alone"]):
        others = f"{recall['without']:.3f}" if "without" in recall else ""
        table.add_row(source, f"{recall['alone']:.3f}", others)
    console.print(table)
