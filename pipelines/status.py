"""What happened, interval by interval, read from the ledger alone."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipelines.shared.ledger import Decision, Ledger, Manifest
from pipelines.shared.run import Run

_LOOK: dict[str, Any] = {"box": SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
STAGES = ("extract", "validate", "features", "train", "evaluate", "promote")


def status(ledger: Ledger, shop: str) -> dict[str, Any]:
    """The shop's intervals as one JSON-able object, oldest first.

    Returns:
        `shop`, `champion` (a version, or None) and `intervals`: for each decided interval its
        edges, row counts, groups, champion, challengers, gain, verdict, reasons and seconds.
    """
    manifests = [manifest for stage in STAGES for manifest in ledger.manifests(stage)]
    return {
        "shop": shop,
        "champion": ledger.champion(),
        "intervals": [_interval(decision, manifests) for decision in ledger.decisions()],
    }


def _interval(decision: Decision, manifests: list[Manifest]) -> dict[str, Any]:
    own = [
        manifest
        for manifest in manifests
        if decision.interval.start <= manifest.interval.start < decision.interval.end
    ]
    checked = [manifest.counts for manifest in own if manifest.stage == "validate"]
    evaluation = decision.evaluation
    return {
        "start": decision.interval.start.isoformat(),
        "end": decision.interval.end.isoformat(),
        **{
            name: sum(counts.get(name, 0) for counts in checked)
            for name in ("extracted", "valid", "quarantined", "duplicates")
        },
        "groups": evaluation.get("groups", {}),
        "candidate_recall": evaluation.get("candidate_recall"),
        "champion": evaluation.get("champion"),
        "challengers": evaluation.get("challengers", []),
        "gain": evaluation.get("gain"),
        "verdict": decision.outcome,
        "promoted": decision.promoted,
        "reasons": list(decision.reasons),
        "seconds": {
            stage: round(sum(each.seconds for each in own if each.stage == stage), 3)
            for stage in STAGES
        },
    }


def tables(report: dict[str, Any]) -> list[Table]:
    """The report as tables that a person can scan on 80 columns: decisions, reasons, seconds."""
    champion = report["champion"]
    title = f"{report['shop']}: " + (f"champion is v{champion}" if champion else "no champion yet")
    decisions = _table(
        title, "interval", "changed\nset aside", "champion", "challenger", "gain", "verdict"
    )
    why = Table("interval", "why", **_LOOK)
    seconds = _table("Seconds per stage", "interval", *STAGES)
    for entry in report["intervals"]:
        decisions.add_row(f"{entry['start'][:10]}\n{entry['end'][:10]}", *_figures(entry))
        why.add_row(entry["start"][:10], entry["reasons"][0] if entry["reasons"] else "–")
        seconds.add_row(entry["start"][:10], *(f"{each:.1f}" for each in entry["seconds"].values()))
    return [decisions, why, seconds]


def _table(title: str, first: str, *names: str) -> Table:
    made = Table(title=title, title_justify="left", **_LOOK)
    made.add_column(first, no_wrap=True)
    for name in names:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def _figures(entry: dict[str, Any]) -> list[str]:
    gain, champion = entry["gain"], entry["champion"]
    best = max(
        entry["challengers"], key=lambda challenger: challenger["ndcg_at_10"] or 0.0, default=None
    )
    promoted = f"[bold green]promote[/]\nv{entry['promoted']}"
    return [
        f"{entry['extracted']:,}\n{entry['quarantined']:,}",
        f"v{champion['version']}\n{_score(champion)}" if champion else "–",
        f"{best['strategy']}\n{_score(best)}" if best else "–",
        f"{gain['mean']:+.4f}\n[{gain['low']:+.4f}, {gain['high']:+.4f}]" if gain else "–",
        promoted if entry["promoted"] else "[yellow]reject[/]",
    ]


def _score(model: dict[str, Any]) -> str:
    score = model.get("ndcg_at_10")
    return "–" if score is None else f"{score:.4f}"


def of_run(run: Run) -> dict[str, Any]:
    """The status of a run's shop."""
    return status(run.ledger, run.shop.shop)
