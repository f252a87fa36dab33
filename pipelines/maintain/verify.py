"""The lake against the ledger: every partition with a manifest is read and hashed again.

Hashes are computed as the stages did: changes in the order of their source, groups by group and
item, only the columns that the manifest names. So files may be merged, and columns be added to
the table later, without a difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from pipelines.shared.columns import EXPIRED, GROUP, INTERVAL, ITEM, LABEL, REASONS, SHOPPER
from pipelines.shared.errors import CorruptPartition
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import Lake, in_source_order
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Installation

STAGES: Final = ("extract", "validate", "features")
Track = Callable[[Sequence[Manifest]], Iterable[Manifest]]
_GROUP_COLUMNS: Final = (GROUP, SHOPPER, ITEM, LABEL, "shown_position")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and the way out."""

    stage: str
    subject: str
    """The table; of features the ranking surface."""
    interval: Interval
    what: str
    way_out: str

    def as_dict(self) -> dict[str, str]:
        """As plain JSON-able values."""
        edges = {name: f"{getattr(self.interval, name):%FT%TZ}" for name in ("start", "end")}
        return asdict(self) | {"interval": self.interval.key} | edges


@dataclass(frozen=True)
class Report:
    """The result of a verification."""

    shop: str
    checked: int
    """Number of manifests verified."""
    rows: int
    """Number of extracted changes on record in them."""
    expired: int
    """Number of manifests of which the declared retention removed a partition."""
    faults: tuple[Fault, ...]

    def required(self) -> Report:
        """This report, if nothing is wrong.

        Raises:
            CorruptPartition: something is; names every fault and its way out.
        """
        if self.faults:
            raise CorruptPartition(
                "\n".join(
                    f"{fault.stage} {fault.subject} {fault.interval}: {fault.what}; {fault.way_out}"
                    for fault in self.faults
                )
            )
        return self

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return asdict(self) | {"faults": [fault.as_dict() for fault in self.faults]}


def verify(
    installation: Installation,
    interval: Interval | None = None,
    table: str | None = None,
    track: Track = iter,
) -> Report:
    """Compare every manifest of extract, validate and features with the lake.

    One partition at a time is in memory.

    Args:
        interval: only manifests of intervals that lie inside.
        table: only this source table; leaves features out.
        track: wraps the manifests as they are verified, to show progress.

    Raises:
        DeclarationError: the table is not declared.
        LedgerUnavailable: the ledger does not answer.
    """
    if table is not None:
        installation.shop.require_table(table)
    known = [each for stage in STAGES for each in installation.ledger.manifests(stage)]
    wanted = [
        each
        for each in known
        if (table is None or (each.stage != "features" and each.subject == table))
        and (interval is None or _inside(each.interval, interval))
    ]
    extracted = {(each.subject, each.interval): each for each in known if each.stage == "extract"}
    faults = [
        Fault(each.stage, each.subject, each.interval, what, _way_out(installation, each))
        for each in track(wanted)
        for what in _wrong(installation.lake, each, extracted.get((each.subject, each.interval)))
    ]
    return Report(
        installation.shop.shop,
        len(wanted),
        sum(each.counts["rows"] for each in wanted if each.stage == "extract"),
        sum(EXPIRED in each.details for each in wanted),
        tuple(faults),
    )


def _inside(inner: Interval, outer: Interval) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def _wrong(lake: Lake, manifest: Manifest, extracted: Manifest | None) -> Iterator[str]:
    check = {"extract": _changes, "validate": _split, "features": _groups}[manifest.stage]
    try:
        check(lake, manifest)
    except CorruptPartition as error:
        yield str(error)
    if manifest.stage == "validate":
        yield from _unaccounted(manifest, extracted)


def _changes(lake: Lake, manifest: Manifest) -> None:
    if EXPIRED not in manifest.details:
        rows = _rows(lake, f"changes/{manifest.subject}", manifest, "rows")
        _require_hash(content_hash(in_source_order(rows)), manifest.content_hash)


def _split(lake: Lake, manifest: Manifest) -> None:
    parts = {"valid": "valid", "quarantine": "quarantined"}
    stored = manifest.details.get("hashes", [None, None])
    hashes = []
    for (part, count), before in zip(parts.items(), stored, strict=True):
        if manifest.details.get(EXPIRED) == part:
            hashes.append(str(before))
            continue
        rows = _rows(lake, f"{part}/{manifest.subject}", manifest, count)
        hashes.append(content_hash(in_source_order(rows)))
    if EXPIRED in manifest.details and None in stored:
        return  # An older record has no hash of each part: what is left has been counted.
    _require_hash(hashlib.sha256("".join(hashes).encode()).hexdigest(), manifest.content_hash)


def _groups(lake: Lake, manifest: Manifest) -> None:
    _rows(lake, f"group_index/{manifest.subject}", manifest, "groups")
    rows = _rows(lake, f"groups/{manifest.subject}", manifest, "rows")
    own = [name for name in _GROUP_COLUMNS if name in rows.column_names]
    hashed = _columns(rows, [*own, *manifest.details["features"]])
    ordered = hashed.sort_by([(GROUP, "ascending"), (ITEM, "ascending")])
    _require_hash(content_hash(ordered), manifest.content_hash)


def _rows(lake: Lake, table: str, manifest: Manifest, count: str) -> pa.Table:
    """A partition's rows with the columns that were hashed; their number must be right."""
    expected = manifest.counts[count]
    try:
        rows = lake.read(table, [manifest.interval])
    except KeyError:
        raise CorruptPartition(f"{table} is gone with all its partitions") from None
    except CorruptPartition as error:
        why = str(error.__cause__ or error).splitlines()[0]
        raise CorruptPartition(f"{table} cannot be read ({why})") from error
    if rows.num_rows != expected:
        what = "is missing" if rows.num_rows == 0 else f"holds {rows.num_rows:,} rows"
        raise CorruptPartition(f"the partition of {table} {what}; on record are {expected:,}")
    names = manifest.details.get("columns")
    if names is None:
        return rows.drop_columns([INTERVAL])
    return _columns(rows, [*names, *(name for name in rows.column_names if name == REASONS)])


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


def _way_out(installation: Installation, manifest: Manifest) -> str:
    shop, interval = installation.shop, manifest.interval
    where = "" if manifest.stage == "features" else f" --table {manifest.subject}"
    again = (
        f"python -m pipelines verify --repair --shop {shop.shop} --start {interval.start:%FT%TZ} "
        f"--end {interval.end:%FT%TZ}{where}"
    )
    source = {
        "extract": "takes the same changes from the source again, where it still has them",
        "validate": "validates the interval again",
        "features": "builds the interval's groups again",
    }[manifest.stage]
    return f"`{again}` {source}; else restore the partition from a backup of the lake"
