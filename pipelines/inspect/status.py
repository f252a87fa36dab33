"""What happened, interval by interval, read from the ledger alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Decision, Ledger, Manifest
from pipelines.shared.run import Run

_LOOK: dict[str, Any] = {"box": SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
STAGES = ("extract", "validate", "features", "train", "evaluate", "promote")


def status(ledger: Ledger, shop: str) -> dict[str, Any]:
    """The shop's intervals as one JSON-able object, oldest first.

    Returns:
        `shop`, `champion` (a version, or None); `intervals`: for each decided interval its
        edges, row counts, groups, champion, challengers, gain, verdict, reasons and seconds;
        `synced`: for each extracted interval and source rows, bytes (as Arrow holds them), both
        also in all until then, and the lag from commit to durable in seconds.
    """
    manifests = [manifest for stage in STAGES for manifest in ledger.manifests(stage)]
    return {
        "shop": shop,
        "champion": ledger.champion(),
        "intervals": [_interval(decision, manifests) for decision in ledger.decisions()],
        "synced": _synced([each for each in manifests if each.stage == "extract"]),
    }


def _synced(manifests: list[Manifest]) -> list[dict[str, Any]]:
    """What came from each source in each interval, and in all until then; oldest first."""
    totals: Counter[tuple[str, str]] = Counter()
    together: dict[tuple[Interval, str], list[Manifest]] = defaultdict(list)
    for each in manifests:
        if "source" in each.details:
            together[each.interval, each.details["source"]].append(each)
    found = []
    for interval, source in sorted(together):
        own = together[interval, source]
        rows = sum(each.counts["rows"] for each in own)
        size = sum(each.details["bytes"] for each in own)
        totals[source, "rows"] += rows
        totals[source, "bytes"] += size
        found.append(
            {
                "start": interval.start.isoformat(),
                "source": source,
                "rows": rows,
                "bytes": size,
                "total_rows": totals[source, "rows"],
                "total_bytes": totals[source, "bytes"],
                "lag_median_s": _middle_lag(own),
                "lag_max_s": max(
                    (each.details["lag_s"]["max"] for each in own if each.counts["rows"]),
                    default=None,
                ),
            }
        )
    return found


def _middle_lag(manifests: list[Manifest]) -> int | None:
    """The median of several tables' median lags, each weighing as much as its rows."""
    lags = sorted(
        (each.details["lag_s"]["median"], each.counts["rows"])
        for each in manifests
        if each.counts["rows"]
    )
    half, seen = (sum(rows for _, rows in lags) + 1) // 2, 0
    for lag, rows in lags:
        seen += rows
        if seen >= half:
            return int(lag)
    return None


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


def source_tables(synced: list[dict[str, Any]], sources: list[dict[str, Any]]) -> list[Table | str]:
    """What came from each source, and how it stands with each now."""
    came = Table(title="Synced per source", title_justify="left", **_LOOK)
    for name in ("interval", "source"):
        came.add_column(name, no_wrap=True)
    for name in ("rows", "in all", "MB", "in all", "lag p50", "lag max"):
        came.add_column(name, justify="right", no_wrap=True)
    for each in synced:
        came.add_row(
            each["start"][:10],
            each["source"],
            *(f"{each[name]:,}" for name in ("rows", "total_rows")),
            *(f"{each[name] / 1e6:,.1f}" for name in ("bytes", "total_bytes")),
            *(_duration(each[name]) for name in ("lag_median_s", "lag_max_s")),
        )
    now = Table(title="Sources now", title_justify="left", **_LOOK)
    for name in ("source", "state", "table", "extracted to"):
        now.add_column(name, no_wrap=True)
    now.add_column("pending", justify="right", no_wrap=True)
    for source in sources:
        state = "[green]up[/]" if source["answers"] else "[red]down[/]"
        for each in source["tables"]:
            waits = " (waits)" if each["waits"] or source["fault"] else ""
            now.add_row(
                source["source"], state, each["table"], f"{_day(each['through'])}{waits}",
                _pending(each),
            )  # fmt: skip
    faults = [
        f"[red]{each['source']}[/]: {escape(each['fault'])}" for each in sources if each["fault"]
    ]
    return [*([came] if synced else []), now, *faults]


def _day(moment: str | None) -> str:
    return moment[:10] if moment else "–"


def _pending(table: dict[str, Any]) -> str:
    if table["pending_rows"] is not None:
        return f"{table['pending_rows']:,} rows"
    if table["pending_bytes"] is not None:
        return f"{table['pending_bytes']:,} B of log"
    return "–"


def _duration(seconds: int | None) -> str:
    """Seconds as a person reads them: 40 s, 12 min, 7 h, 3 d."""
    if seconds is None:
        return "–"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds} s"


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
