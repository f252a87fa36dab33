"""The status of a shop: what happened in each interval, read from the ledger alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Decision, Manifest
from pipelines.shared.run import Installation

STAGES = ("extract", "validate", "features", "train", "evaluate", "promote")


def report_of(installation: Installation) -> dict[str, Any]:
    """A shop's intervals as one JSON-able object, oldest first.

    `shop`, `champion` (a version, or None); `intervals`: for each decided interval its edges, row
    counts, groups, champion, challengers, gain, verdict, reasons and seconds; `synced`: for each
    extracted interval and source its rows and bytes (as Arrow holds them), both also in total until
    then, and the lag from commit to durable in seconds.
    """
    ledger = installation.ledger
    manifests = [manifest for stage in STAGES for manifest in ledger.manifests(stage)]
    return {
        "shop": installation.shop.shop,
        "champion": ledger.champion(),
        "intervals": [_interval(decision, manifests) for decision in ledger.decisions()],
        "synced": _synced([each for each in manifests if each.stage == "extract"]),
    }


def _synced(manifests: list[Manifest]) -> list[dict[str, Any]]:
    """What each source gave in each interval, and in total until then; oldest first."""
    totals: Counter[tuple[str, str]] = Counter()
    by_source: dict[tuple[Interval, str], list[Manifest]] = defaultdict(list)
    for each in manifests:
        if "source" in each.details:
            by_source[each.interval, each.details["source"]].append(each)
    synced = []
    for (interval, source), own in sorted(by_source.items()):
        rows = sum(each.counts["rows"] for each in own)
        size = sum(each.details["bytes"] for each in own)
        totals[source, "rows"] += rows
        totals[source, "bytes"] += size
        synced.append(
            {
                "start": interval.start.isoformat(),
                "source": source,
                "rows": rows,
                "bytes": size,
                "total_rows": totals[source, "rows"],
                "total_bytes": totals[source, "bytes"],
                "lag_median_s": _median_lag(own),
                "lag_max_s": max(
                    (each.details["lag_s"]["max"] for each in own if each.counts["rows"]),
                    default=None,
                ),
            }
        )
    return synced


def _median_lag(manifests: list[Manifest]) -> int | None:
    """The median of several tables' median lags, weighted by their rows."""
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
