"""What happened, interval by interval, read from the ledger alone."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from pipelines.shared.ledger import Decision, Ledger, Manifest
from pipelines.shared.run import Run

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


def table(report: dict[str, Any]) -> Table:
    """The report as a table that a person can scan."""
    champion = report["champion"]
    title = f"{report['shop']}: champion is version {champion}" if champion else report["shop"]
    shown = Table(title=title, title_justify="left", show_lines=False, pad_edge=False)
    for name in ("interval", "changed", "quarantined", "champion", "challenger", "gain"):
        shown.add_column(name, justify="left" if name == "interval" else "right", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    shown.add_column("reason", ratio=1)
    shown.add_column("seconds", justify="right", no_wrap=True)
    for entry in report["intervals"]:
        shown.add_row(*_cells(entry))
    return shown


def _cells(entry: dict[str, Any]) -> list[str]:
    gain, champion = entry["gain"], entry["champion"]
    best = max(
        entry["challengers"], key=lambda challenger: challenger["ndcg_at_10"] or 0.0, default=None
    )
    verdict = "[bold green]promote[/]" if entry["verdict"] == "promote" else "[yellow]reject[/]"
    if entry["promoted"]:
        verdict += f" v{entry['promoted']}"
    return [
        f"{entry['start'][:10]} … {entry['end'][5:10]}",
        f"{entry['extracted']:,}",
        f"{entry['quarantined']:,}",
        f"{_score(champion)}",
        f"{best['strategy']} {_score(best)}" if best else "–",
        f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]" if gain else "–",
        verdict,
        entry["reasons"][0] if entry["reasons"] else "–",
        " ".join(f"{seconds:.1f}" for seconds in entry["seconds"].values()),
    ]


def _score(model: dict[str, Any] | None) -> str:
    if not model or model.get("ndcg_at_10") is None:
        return "–"
    name = f"v{model['version']} " if model.get("version") and "strategy" not in model else ""
    return f"{name}{model['ndcg_at_10']:.4f}"


def of_run(run: Run) -> dict[str, Any]:
    """The status of a run's shop."""
    return status(run.ledger, run.shop.shop)
