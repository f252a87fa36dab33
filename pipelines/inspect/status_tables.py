"""The status report as tables that a person can scan on a terminal of 80 columns."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pipelines.inspect.status import STAGES

_LOOK: dict[str, Any] = {"box": SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}


def decisions(report: dict[str, Any]) -> list[Table]:
    """The decided intervals: decisions, reasons, and seconds per stage."""
    champion = report["champion"]
    title = f"{report['shop']}: " + (f"champion is v{champion}" if champion else "no champion yet")
    decided = _table(
        title, "interval", "changed\nquarantined", "champion", "challenger", "gain", "verdict"
    )
    why = Table("interval", "why", **_LOOK)
    seconds = _table("Seconds per stage", "interval", *STAGES)
    for entry in report["intervals"]:
        decided.add_row(f"{entry['start'][:10]}\n{entry['end'][:10]}", *_figures(entry))
        why.add_row(entry["start"][:10], entry["reasons"][0] if entry["reasons"] else "–")
        seconds.add_row(entry["start"][:10], *(f"{each:.1f}" for each in entry["seconds"].values()))
    return [decided, why, seconds]


def sources(synced: list[dict[str, Any]], states: list[dict[str, Any]]) -> list[Table | Text]:
    """What each source gave, and the state of each now."""
    given = Table(title="Synced per source", title_justify="left", **_LOOK)
    for name in ("interval", "source"):
        given.add_column(name, no_wrap=True)
    for name in ("rows", "in all", "MB", "in all", "lag p50", "lag max"):
        given.add_column(name, justify="right", no_wrap=True)
    for each in synced:
        given.add_row(
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
    for source in states:
        state = Text("up", "green") if source["answers"] else Text("down", "red")
        for each in source["tables"]:
            waits = " (waits)" if each["waits"] or source["fault"] else ""
            now.add_row(
                source["source"], state, each["table"], f"{_day(each['through'])}{waits}",
                _pending(each),
            )  # fmt: skip
    faults = [
        Text.assemble((each["source"], "red"), f": {each['fault']}")
        for each in states
        if each["fault"]
    ]
    ahead = [
        Text.assemble(
            (each["source"], "red"), f": stamped in the future: {'; '.join(each['ahead'])}"
        )
        for each in states
        if each["ahead"]
    ]
    return [*([given] if synced else []), now, *faults, *ahead]


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
    table = Table(title=title, title_justify="left", **_LOOK)
    table.add_column(first, no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _figures(entry: dict[str, Any]) -> list[str | Text]:
    gain, champion = entry["gain"], entry["champion"]
    best = max(
        entry["challengers"], key=lambda challenger: challenger["ndcg_at_10"] or 0.0, default=None
    )
    promoted = Text.assemble(("promote", "bold green"), f"\nv{entry['promoted']}")
    return [
        f"{entry['extracted']:,}\n{entry['quarantined']:,}",
        f"v{champion['version']}\n{_score(champion)}" if champion else "–",
        f"{best['strategy']}\n{_score(best)}" if best else "–",
        f"{gain['mean']:+.4f}\n[{gain['low']:+.4f}, {gain['high']:+.4f}]" if gain else "–",
        promoted if entry["promoted"] else Text("reject", "yellow"),
    ]


def _score(model: dict[str, Any]) -> str:
    score = model.get("ndcg_at_10")
    return "–" if score is None else f"{score:.4f}"
