"""Learning only what is new beside learning everything, week after week, on the same groups."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.learn import years
from benchmarks.learn.contenders import BASELINE, CONTENDERS, Week, Weeks, play
from benchmarks.learn.years import SHOP
from benchmarks.validated_lake import FIRST, ValidatedLake, real_log
from pipelines.evaluate import bootstrap
from pipelines.shared.ledger import Manifest
from pipelines.train.data.groups import Catalogue

WARM_UP: Final = 12
"""Weeks that the first model learns from."""
STRESSED: Final = ("frozen", "refit_boost", "policy", "full retrain")
BEFORE, AFTER = 4, 8
"""Weeks that a stress year is played before and from the change on."""
RETURN_WEEKS: Final = 8
BACK: Final = 0.97
"""Recovered: two weeks running, the NDCG@10 is this part of what learning it all ends up with."""
say = Console(stderr=True, highlight=False)
Played = dict[str, list[Week]]


def main(
    weeks: Annotated[int, typer.Option(min=20, max=52, help="Weeks of the year.")] = 52,
    share: Annotated[float, typer.Option(help="Share of the households.")] = 0.15,
    home: Annotated[
        Path, typer.Option(help="Where data and results are kept: a second call goes on there.")
    ] = Path(".freshrank/benchmarks/learn"),
    only: Annotated[
        list[str] | None, typer.Option(help="Only these contenders; ends without a summary.")
    ] = None,
    stress: Annotated[bool, typer.Option(help="Play the two stress years as well.")] = True,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON line.")] = False,
) -> None:
    """Play strategies, the policy, frozen, windowed and full retraining through the year.

    Each week meets the model that was ready when it began: every group that is no memory holdout
    is ranked, with all its candidates, before anything learns from it. Training takes a week at a
    time, without the three days that the loop holds out for its gate. The last line is one JSON
    object: `policy_over_full` (NDCG@10 over the full retrain's), `policy_cost_share` (processor
    seconds of training over the full retrain's; `policy_wall_share` by the clock), `gap_closed`
    and `gap_closed_last10` (of the distance from frozen to full), `max_trees`, `recover_weeks` and
    `recover_weeks_full` (after the change of taste; null where it did not come back),
    `forgetting` (the full retrain's NDCG@10 less the policy's on the memory holdout of the weeks
    before the first model, at the end) and `p99_ms_500`. Reading the lake is left out of the
    seconds: it would cost the full retrain more.
    """
    home = home / f"{share:g}"
    year = _built(home / "year", weeks, share, threads)
    names = tuple(only or CONTENDERS)
    played = _played(year, names, WARM_UP, weeks - 1, home / "results" / "year")
    changed = min(30, weeks - 12)
    stressed: dict[str, Played] = {}
    if stress:
        for kind in ("taste", "return"):
            data = _stressed(kind, home, changed, weeks, share, threads)
            last = min(weeks - 1, changed + AFTER - 1)
            some = tuple(name for name in STRESSED if name in names)
            folder = home / "results" / kind
            stressed[kind] = _played(data, some, changed - BEFORE, last, folder)
    if only:
        return
    if not as_json:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 120  # Rich takes a pipe for 80 columns, too few for these.
        console.print(*_tables(played, stressed, changed))
    if plot is not None:
        _draw(played, stressed, changed, plot)
    print(json.dumps(_summary(played, stressed, changed) | {"share": share, "weeks": weeks}))


def _built(
    home: Path, weeks: int, share: float, threads: int, log: years.Log | None = None
) -> Weeks:
    """The features of a year; weeks on record stand."""
    shelf = years.replayed(home, weeks, share, threads, say, log)
    return Weeks(shelf.run(0), Catalogue.of(_manifests(shelf)[-1]))


def _manifests(shelf: ValidatedLake) -> list[Manifest]:
    run = shelf.run(0)
    return run.ledger.manifests("features", run.shop.surface.name)


def _stressed(kind: str, home: Path, changed: int, weeks: int, share: float, threads: int) -> Weeks:
    """A stress year: the plain one up to the change, then its own."""
    folder, source = home / kind, ValidatedLake.at(home / "year", SHOP, threads=threads)
    if not (folder / "copied").exists():
        shutil.rmtree(folder, ignore_errors=True)
        before = ValidatedLake.at(folder, SHOP, threads=threads)
        shutil.copytree(home / "year" / "lake", folder / "lake")
        for stage in ("validate", "features"):
            for each in source.run(0).ledger.manifests(stage):
                if each.interval.start < FIRST + changed * years.WEEK:
                    before.run(0).ledger.record(each)
        (folder / "copied").touch()
    last = min(weeks, changed + AFTER)
    shelf = ValidatedLake.at(folder, SHOP, threads=threads)
    if len(_manifests(shelf)) >= last:
        return _built(folder, last, share, threads)
    log, since = real_log(weeks, share), FIRST + changed * years.WEEK
    if kind == "taste":
        log = years.taste_change(log, since)
    else:
        early = FIRST + timedelta(weeks=5)
        log = years.early_return(log, since, early, RETURN_WEEKS)
    return _built(folder, last, share, threads, log)


def _played(weeks: Weeks, names: tuple[str, ...], first: int, last: int, folder: Path) -> Played:
    found: Played = {}
    with Progress(console=say, transient=True) as progress:
        task = progress.add_task(folder.name, total=len(names) * (last - first + 1))
        for name in names:
            found[name] = []
            for week in play(weeks, name, first, last, folder / name.replace(" ", "-")):
                found[name].append(week)
                progress.update(task, advance=1, description=f"{folder.name}: {name}")
    return found


@dataclass(frozen=True)
class _Line:
    """One contender over the year."""

    ndcg: float
    last10: float
    cpu_s: float
    seconds: float
    trees: int
    score_ms: float

    @classmethod
    def of(cls, weeks: list[Week]) -> _Line:
        means = [statistics.mean(each.ndcg) for each in weeks]
        return cls(
            statistics.mean(means),
            statistics.mean(means[-10:]),
            sum(each.cpu_s for each in weeks[1:]),
            sum(each.seconds for each in weeks[1:]),
            max(each.trees for each in weeks),
            weeks[-1].score_ms,
        )


def _summary(played: Played, stressed: dict[str, Played], changed: int) -> dict[str, Any]:
    policy, full, frozen = (_Line.of(played[name]) for name in ("policy", "full retrain", "frozen"))
    found: dict[str, Any] = {
        "policy_over_full": round(policy.ndcg / full.ndcg, 4),
        "policy_over_full_last10": round(policy.last10 / full.last10, 4),
        "policy_cost_share": round(policy.cpu_s / full.cpu_s, 4),
        "policy_wall_share": round(policy.seconds / full.seconds, 4),
        "gap_closed": round((policy.ndcg - frozen.ndcg) / (full.ndcg - frozen.ndcg), 3),
        "gap_closed_last10": round(
            (policy.last10 - frozen.last10) / (full.last10 - frozen.last10), 3
        ),
        "max_trees": policy.trees,
        "p99_ms_500": round(max(each.score_ms for each in played["policy"]), 2),
        "forgetting": round(played["full retrain"][-1].memory - played["policy"][-1].memory, 4),
    }
    if stressed:
        found |= {
            "recover_weeks": recovered(stressed, "policy", changed),
            "recover_weeks_full": recovered(stressed, "full retrain", changed),
        }
        for name, short in (("policy", "policy"), ("full retrain", "full")):
            later = [
                statistics.mean(each.ndcg)
                for each in stressed["return"][name]
                if changed <= each.week < changed + RETURN_WEEKS
            ]
            found[f"return_ndcg_{short}"] = round(statistics.mean(later), 4)
    return found


def recovered(stressed: dict[str, Played], name: str, changed: int) -> int | None:
    """Weeks after a change of taste until a contender is back, two weeks running.

    Back is `BACK` of what the full retrain reaches in the last four weeks played: the new taste is
    another shop, in which the undisturbed year's level may be out of reach. 0 where it never fell;
    None where it did not come back.
    """
    full = [statistics.mean(each.ndcg) for each in stressed["taste"]["full retrain"]]
    level = BACK * statistics.mean(full[-4:])
    later = [
        statistics.mean(each.ndcg) >= level
        for each in stressed["taste"][name]
        if each.week >= changed
    ]
    for place in range(len(later) - 1):
        if later[place] and later[place + 1]:
            return place
    return None


def _gain(own: list[Week], other: list[Week]) -> bootstrap.Gain:
    """The mean gain over all groups of the year with its 90 % interval, resampling weeks."""
    gains = [np.array(one.ndcg) - np.array(two.ndcg) for one, two in zip(own, other, strict=True)]
    numbers = np.repeat(np.arange(len(gains)), [len(each) for each in gains])
    return bootstrap.paired_gain(np.concatenate(gains), numbers, 0.9, bootstrap.seed("learn"))


def _tables(played: Played, stressed: dict[str, Played], changed: int) -> Iterator[Table]:
    full, frozen = _Line.of(played["full retrain"]), _Line.of(played["frozen"])
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="NDCG@10 over all candidates, weekly")
    heads = ("contender", "NDCG@10", "of full", "last 10", "gain over full, 90 %", "cost share")
    for name in (*heads, "trees", "p99 ms"):
        table.add_column(name, justify="left" if name == "contender" else "right")
    for name, weeks in played.items():
        line = _Line.of(weeks)
        table.add_row(
            name, f"{line.ndcg:.4f}", f"{line.ndcg / full.ndcg:.3f}",
            f"{line.last10 / full.last10:.3f}", str(_gain(weeks, played["full retrain"])),
            f"{line.cpu_s / full.cpu_s:.1%}", str(line.trees), f"{line.score_ms:.1f}",
        )  # fmt: skip
    table.caption = f"frozen is at {frozen.ndcg / full.ndcg:.3f} of the full retrain"
    yield table
    yield _by_week("the year", played)
    for kind, found in stressed.items():
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"{kind}: NDCG@10 by week")
        table.add_column("contender")
        weeks = next(iter(found.values()))
        for each in weeks:
            table.add_column(f"{each.week - changed:+d}", justify="right")
        for name, own in found.items():
            table.add_row(name, *(f"{statistics.mean(each.ndcg):.3f}" for each in own))
        yield table
        yield _by_week(kind, found)


def _by_week(kind: str, played: Played) -> Table:
    """What the policy did, and how far it stood behind the full retrain."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"{kind}: the policy by week")
    for name in ("week", "made by", "errors behind", "of full", "CPU s", "full's CPU s"):
        table.add_column(name, justify="left" if name == "made by" else "right")
    for own, full in zip(played["policy"], played["full retrain"], strict=True):
        part = statistics.mean(own.ndcg) / statistics.mean(full.ndcg)
        behind = "" if own.behind is None else f"{own.behind:.1f}"
        table.add_row(
            str(own.week + 1), own.said or "first", behind, f"{part:.3f}", f"{own.cpu_s:.1f}",
            f"{full.cpu_s:.1f}",
        )  # fmt: skip
    return table


def _draw(played: Played, stressed: dict[str, Played], changed: int, path: Path) -> None:
    """The weekly curves over the full retrain's, and the weeks around the change of taste."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = 1 + bool(stressed)
    figure, panels = plt.subplots(
        rows, 1, figsize=(9, 1 + 3 * rows), layout="constrained", squeeze=False
    )
    above, *below = panels[:, 0]
    colours = {name: f"C{place}" for place, name in enumerate(CONTENDERS)}
    full = np.array([statistics.mean(each.ndcg) for each in played["full retrain"]])
    for name, weeks in played.items():
        if name == BASELINE:
            continue
        own = np.array([statistics.mean(each.ndcg) for each in weeks])
        smooth = np.convolve(own / full, np.ones(4) / 4, "valid")
        above.plot([each.week + 1 for each in weeks][3:], smooth, color=colours[name], label=name)
    above.set(xlabel="week", ylabel="of the full retrain (4 weeks' mean)")
    for axes in below:
        for name, weeks in stressed["taste"].items():
            means = [statistics.mean(each.ndcg) for each in weeks]
            places = [each.week - changed for each in weeks]
            axes.plot(places, means, color=colours[name], label=name)
        axes.set(xlabel="weeks from an abrupt change of taste", ylabel="NDCG@10")
    for axes in panels[:, 0]:
        axes.legend(fontsize="small", ncols=3)
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
