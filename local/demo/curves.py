"""Three models over the demo's weeks: frozen, served, and retrained on everything."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from local.demo.progress import Bar
from pipelines import loop
from pipelines.inspect import status, status_tables
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation, Run
from pipelines.shared.settings import Settings


@dataclass(frozen=True)
class Week:
    """NDCG@10 of the three models on one week's forward holdout, and what learning cost."""

    start: str
    groups: int
    frozen: float
    served: float
    retrained: float
    update_s: float
    """Seconds the week's challengers took to train."""
    retrain_s: float
    """Seconds a model trained on everything took."""


def references(
    settings: Settings, shop: str, first: Interval, later: Interval, bar: Bar
) -> list[Week]:
    """Score the first model and a weekly full retrain on the weeks that the champion served.

    As in service, each week meets the model that was ready when it began: the champion, and the
    retrain, of the week before.
    """
    from pipelines import train

    opening = Run.of(settings, shop, first)
    frozen = opening.lake.local_root / opening.ledger.versions()[0].artifact
    runs = loop.runs(settings, shop, later, as_one=False)
    update = bar.track("For comparison: retrain on all", len(runs))
    weeks = []
    with tempfile.TemporaryDirectory() as folder:
        retrained, cost = frozen, 0.0
        for number, run in enumerate(runs):
            update(number, run.interval.key[:10])
            weeks.append(_week(run, frozen, retrained, cost))
            if number + 1 < len(runs):
                started = time.monotonic()
                retrained = train.retrain(run, Path(folder) / str(number))
                cost = time.monotonic() - started
        update(len(runs), "")
    return weeks


def _week(run: Run, frozen: Path, retrained: Path, retrain_s: float) -> Week:
    from pipelines import evaluate

    decision = next(each for each in run.ledger.decisions() if each.interval == run.interval)
    champion = decision.evaluation.get("champion") or {}
    spent = run.ledger.manifest("train", run.shop.surface.name, run.interval)
    ndcg = evaluate.forward_ndcg(run, [frozen, retrained])
    return Week(
        run.interval.key[:10],
        decision.evaluation.get("groups", {}).get("forward_holdout", 0),
        ndcg[0],
        champion.get("ndcg_at_10") or float("nan"),
        ndcg[1],
        spent.seconds if spent else 0.0,
        retrain_s,
    )


def show(console: Console, settings: Settings, shop: str, weeks: list[Week], share: float) -> None:
    """Print the decisions, and below them the three models side by side."""
    console.print()
    report = status.report_of(Installation.open(settings, shop))
    console.print(*status_tables.decisions(report), sep="\n")
    console.print(
        f"\nThe same weeks, NDCG@10 on each week's forward holdout ({share:.0%} of the households)"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("week", "groups", "frozen", "served", "retrained", "update s", "retrain s"):
        table.add_column(name, justify="left" if name == "week" else "right")
    for week in weeks:
        table.add_row(
            week.start,
            f"{week.groups:,}",
            *(f"{value:.4f}" for value in (week.frozen, week.served, week.retrained)),
            *(f"{value:.1f}" for value in (week.update_s, week.retrain_s)),
        )
    table.add_section()
    table.add_row("mean", "", *_means(weeks))
    console.print(table)
    console.print(
        "frozen: the first model, for ever · served: the champion of each week · retrained: a new "
        "model each week from all history"
    )


def _means(weeks: list[Week]) -> list[str]:
    def mean(name: str) -> float:
        return statistics.mean(float(getattr(week, name)) for week in weeks)

    scores = [f"{mean(name):.4f}" for name in ("frozen", "served", "retrained")]
    return [*scores, f"{mean('update_s'):.1f}", f"{mean('retrain_s'):.1f}"]


def plot(weeks: list[Week], path: Path) -> Path:
    """Draw the three curves into a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    places = range(len(weeks))
    styles = {
        "retrained": ("#7f8c8d", "--"),
        "served": ("#1f6feb", "-"),
        "frozen": ("#c0392b", ":"),
    }
    for name, (colour, line) in styles.items():
        values = [getattr(week, name) for week in weeks]
        label = f"{name}, mean {sum(values) / len(values):.4f}"
        axes.plot(places, values, line, marker="o", color=colour, label=label, linewidth=2)
    axes.set_xticks(list(places), [week.start[5:] for week in weeks])
    axes.set_xlabel("week of 2017, by its first day")
    axes.set_ylabel("NDCG@10 on the week's forward holdout")
    axes.set_title("The served champion, beside a frozen and a retrained model")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
