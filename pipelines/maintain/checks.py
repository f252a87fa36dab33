"""What a manifest says of the lake, checked: one function a stage.

Hashes are computed as the stages did: changes in the order of their source, groups by group and
item, state by its recorded order, only the columns that the manifest names. So files may be merged,
and columns be added to the table later, without a difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

import pyarrow as pa

from pipelines.shared.columns import (
    EXPIRED,
    GROUP,
    INTERVAL,
    ITEM,
    LABEL,
    MISFITS,
    REASONS,
    SHOPPER,
)
from pipelines.shared.errors import CorruptPartition
from pipelines.shared.hashing import content_hash
from pipelines.shared.lake import Lake, in_source_order
from pipelines.shared.ledger import Manifest
from pipelines.shared.models import booster, challengers
from pipelines.shared.run import Installation

_GROUP_COLUMNS: Final = (GROUP, SHOPPER, ITEM, LABEL, "shown_position")


def wrong(installation: Installation, manifest: Manifest, extracted: Manifest | None) -> list[str]:
    """What is wrong with what a manifest records; a line each.

    Args:
        extracted: extraction's manifest of the same table and interval.
    """
    found = []
    for check in _CHECKS[manifest.stage]:
        try:
            check(installation, manifest)
        except CorruptPartition as error:
            found.append(str(error))
    if manifest.stage == "validate":
        found += _unaccounted(manifest, extracted)
    return found


def _changes(installation: Installation, manifest: Manifest) -> None:
    if EXPIRED not in manifest.details:
        rows = _rows(installation.lake, f"changes/{manifest.subject}", manifest, "rows")
        _require_hash(hash_of_changes(rows, manifest), manifest.content_hash)


def _split(installation: Installation, manifest: Manifest) -> None:
    parts = {"valid": "valid", "quarantine": "quarantined"}
    stored = manifest.details.get("hashes", [None, None])
    hashes = []
    for (part, count), before in zip(parts.items(), stored, strict=True):
        if manifest.details.get(EXPIRED) == part:
            hashes.append(str(before))
            continue
        rows = _rows(installation.lake, f"{part}/{manifest.subject}", manifest, count)
        hashes.append(hash_of_changes(rows, manifest))
    if EXPIRED in manifest.details and None in stored:
        return  # An older record has no hash of each part: what is left has been counted.
    _require_hash(hash_of_both(hashes), manifest.content_hash)


def hash_of_changes(rows: pa.Table, manifest: Manifest) -> str:
    """The content hash of a partition of changes, or of a part of them that validation made.

    Raises:
        CorruptPartition: the rows lack a column that the manifest names.
    """
    names = manifest.details.get("columns")
    if names is None:
        beside: list[str] = [each for each in (INTERVAL, MISFITS) if each in rows.column_names]
        return content_hash(in_source_order(rows.drop_columns(beside)))
    reasons = [name for name in rows.column_names if name == REASONS]
    return content_hash(in_source_order(_columns(rows, [*names, *reasons])))


def hash_of_both(hashes: Iterable[str]) -> str:
    """The content hash of a validated partition, from those of its valid and quarantined rows."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def hash_of_groups(rows: pa.Table, manifest: Manifest) -> str:
    """The content hash of a partition of groups; errors as of `hash_of_changes`."""
    own = [name for name in _GROUP_COLUMNS if name in rows.column_names]
    hashed = _columns(rows, [*own, *manifest.details["features"]])
    return content_hash(hashed.sort_by([(GROUP, "ascending"), (ITEM, "ascending")]))


def hash_of_state(rows: pa.Table, record: Mapping[str, Any]) -> str:
    """The content hash of a partition of the state, by its record in the step's manifest."""
    ordered = _columns(rows, record["columns"]).sort_by(
        [(name, "ascending") for name in record["order"]]
    )
    return content_hash(ordered)


def hash_of_serving(rows: pa.Table, manifest: Manifest) -> str:
    """The content hash of a serving partition; errors as of `hash_of_changes`."""
    served = _columns(rows, manifest.details["columns"])
    return content_hash(served.sort_by([(SHOPPER, "ascending"), (ITEM, "ascending")]))


def hash_of_scores(rows: pa.Table) -> str:
    """The content hash of a partition of scores."""
    ordered = rows.drop_columns([INTERVAL]).sort_by(
        [(name, "ascending") for name in ("model", "split", GROUP)]
    )
    return content_hash(ordered)


def _page(installation: Installation, manifest: Manifest) -> None:
    page, days = manifest.details.get("page"), installation.shop.retention.docs_days
    if page is None or (installation.lake.local_root / page).is_file():
        return
    ends = [each.interval.end for each in installation.ledger.manifests("extract")]
    if days is None or manifest.interval.end > max(ends) - timedelta(days=days):
        raise CorruptPartition(f"the page {page} is gone")


def _groups(installation: Installation, manifest: Manifest) -> None:
    lake = installation.lake
    _rows(lake, f"group_index/{manifest.subject}", manifest, "groups")
    rows = _rows(lake, f"groups/{manifest.subject}", manifest, "rows")
    _require_hash(hash_of_groups(rows, manifest), manifest.content_hash)


def _state(installation: Installation, manifest: Manifest) -> None:
    """The step's partitions of the state; a record of an earlier version names none."""
    for table, record in manifest.details.get("state", {}).items():
        rows = _read(installation.lake, table, manifest)
        _require_count(table, rows.num_rows, record["rows"])
        try:
            _require_hash(hash_of_state(rows, record), record["content_hash"])
        except CorruptPartition as error:
            raise CorruptPartition(f"{table}: {error}") from None


def _serving(installation: Installation, manifest: Manifest) -> None:
    rows = _rows(installation.lake, f"serving/{manifest.subject}", manifest, "rows")
    _require_hash(hash_of_serving(rows, manifest), manifest.content_hash)


def _scores(installation: Installation, manifest: Manifest) -> None:
    table, recorded = f"scores/{manifest.subject}", manifest.content_hash
    if recorded == hashlib.sha256(b"").hexdigest():
        return
    rows = _read(installation.lake, table, manifest)
    # Earlier versions hashed the rows as they were written, which one file gives back.
    if recorded not in (hash_of_scores(rows), content_hash(rows.drop_columns([INTERVAL]))):
        raise CorruptPartition(f"the rows of {table} are not the ones recorded")


def _models(installation: Installation, manifest: Manifest) -> None:
    root = installation.lake.local_root
    for each in challengers.Trained.of(manifest.details).challengers:
        booster.read(root / each.artifact, each.content_hash)
        booster.card(root / each.artifact)


Check = Callable[[Installation, Manifest], None]
_CHECKS: Final[Mapping[str, tuple[Check, ...]]] = {
    "extract": (_changes,),
    "validate": (_split, _page),
    "features": (_groups, _state),
    "serve": (_serving,),
    "train": (_models,),
    "evaluate": (_scores,),
}
STAGES: Final = tuple(_CHECKS)
"""Stages whose manifests are verified, in the order in which they are repaired."""


def _rows(lake: Lake, table: str, manifest: Manifest, count: str) -> pa.Table:
    """A partition's rows; their number must be right."""
    rows = _read(lake, table, manifest)
    _require_count(table, rows.num_rows, manifest.counts[count])
    return rows


def _read(lake: Lake, table: str, manifest: Manifest) -> pa.Table:
    try:
        return lake.read(table, [manifest.interval])
    except KeyError:
        raise CorruptPartition(f"{table} is gone with all its partitions") from None
    except CorruptPartition as error:
        why = str(error.__cause__ or error).splitlines()[0]
        raise CorruptPartition(f"{table} cannot be read ({why})") from error


def _require_count(table: str, rows: int, expected: int) -> None:
    if rows != expected:
        what = "is missing" if rows == 0 else f"holds {rows:,} rows"
        raise CorruptPartition(f"the partition of {table} {what}; on record are {expected:,}")


def _columns(rows: pa.Table, names: list[str]) -> pa.Table:
    if missing := [name for name in names if name not in rows.column_names]:
        raise CorruptPartition(f"the table has lost its columns {', '.join(missing)}")
    return rows.select(names)


def _require_hash(computed: str, recorded: str) -> None:
    if computed != recorded:
        raise CorruptPartition(
            f"the rows are not the ones recorded (SHA-256 {computed[:12]}…, on record "
            f"{recorded[:12]}…)"
        )


def _unaccounted(manifest: Manifest, extracted: Manifest | None) -> Iterator[str]:
    """Law 2: extracted = valid + quarantined + duplicates."""
    counts = manifest.counts
    parts = counts["valid"] + counts["quarantined"] + counts["duplicates"]
    if parts != counts["extracted"]:
        yield (
            f"{counts['extracted']:,} were extracted, but {counts['valid']:,} valid + "
            f"{counts['quarantined']:,} quarantined + {counts['duplicates']:,} duplicates = "
            f"{parts:,}"
        )
    if extracted is None:
        yield "validated, but extraction is not on record"
    elif extracted.counts["rows"] != counts["extracted"]:
        yield (
            f"{counts['extracted']:,} rows were validated, but {extracted.counts['rows']:,} "
            "were extracted"
        )
