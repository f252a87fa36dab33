"""Manifests of partitions that a forgotten shopper's rows were erased from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.maintain.checks import (
    hash_of_both,
    hash_of_changes,
    hash_of_groups,
    hash_of_scores,
    hash_of_serving,
    hash_of_state,
)
from pipelines.maintain.forget.places import count
from pipelines.shared.columns import (
    DELETE,
    EXPIRED,
    INSERT,
    INTERVAL,
    MEMORY,
    OP,
    RELEVANT,
    UPDATE,
)
from pipelines.shared.errors import CorruptPartition
from pipelines.shared.hashing import content_hash
from pipelines.shared.ledger import Manifest

NOTE: Final = "forgotten"
"""In a manifest's details: rows of forgotten shoppers were erased from its partitions."""


def of_changes(manifest: Manifest, before: pa.Table, after: pa.Table) -> Manifest:
    """Extraction's manifest of a partition.

    Args:
        before: the rows stored, with the partition's key.
        after: those that stay.

    Raises:
        CorruptPartition: what is stored is not what is on record.
    """
    digest = hash_of_changes(after, manifest)
    _require(manifest, {hash_of_changes(before, manifest), digest})
    counts = {"rows": after.num_rows} | {
        op: count(pc.equal(after.column(OP), pa.scalar(op))) for op in (INSERT, UPDATE, DELETE)
    }
    return _amended(manifest, counts, digest)


def of_expired(manifest: Manifest, validated: Manifest) -> Manifest:
    """Extraction's manifest of a partition whose changes expired: only validation's are left."""
    counts = dict(manifest.counts) | {"rows": validated.counts["extracted"]}
    return _amended(manifest, counts, manifest.content_hash)


def of_split(
    manifest: Manifest,
    before: tuple[pa.Table, pa.Table],
    after: tuple[pa.Table, pa.Table],
    extracted: Manifest | None,
) -> Manifest:
    """Validation's manifest of a partition.

    Args:
        before: the valid and the quarantined rows stored, with the partition's key.
        after: those that stay.
        extracted: extraction's manifest, amended already unless its changes expired.

    Raises:
        CorruptPartition: what is stored is not what is on record.
    """
    stored, expired = manifest.details.get("hashes", [None, None]), manifest.details.get(EXPIRED)

    def digests(rows: tuple[pa.Table, pa.Table]) -> list[Any]:
        found = [hash_of_changes(each, manifest) for each in rows]
        return [found[0], stored[1] if expired == "quarantine" else found[1]]

    hashes = digests(after)
    comparable = None not in hashes
    digest = hash_of_both(hashes) if comparable else manifest.content_hash
    if comparable:
        _require(manifest, {hash_of_both(digests(before)), digest})
    counts = dict(manifest.counts) | {"valid": after[0].num_rows}
    if expired != "quarantine":
        counts["quarantined"] = after[1].num_rows
    if extracted is not None and EXPIRED not in extracted.details:
        counts["extracted"] = extracted.counts["rows"]
        counts["duplicates"] = counts["extracted"] - counts["valid"] - counts["quarantined"]
    else:
        counts["extracted"] = counts["valid"] + counts["quarantined"] + counts["duplicates"]
    details = {"hashes": hashes} if comparable and "hashes" in manifest.details else {}
    return _amended(manifest, counts, digest, **details)


def of_groups(manifest: Manifest, before: pa.Table, after: pa.Table, index: pa.Table) -> Manifest:
    """The features' manifest of a step.

    Args:
        before: the candidates stored, with the partition's key.
        after: those that stay.
        index: the group index of those that stay.

    Raises:
        CorruptPartition: what is stored is not what is on record.
    """
    digest = hash_of_groups(after, manifest)
    _require(manifest, {hash_of_groups(before, manifest), digest})
    counts = dict(manifest.counts) | {
        "groups": index.num_rows,
        "rows": after.num_rows,
        "memory_holdout": count(index[MEMORY]),
        "without_relevant": count(pc.equal(index[RELEVANT], pa.scalar(0, pa.int32()))),
    }
    return _amended(manifest, counts, digest)


def of_state(manifest: Manifest, table: str, before: pa.Table, after: pa.Table) -> Manifest:
    """The features' manifest of a step, for a table of the state; the step's chain stays.

    Raises:
        CorruptPartition: what is stored is not what is on record.
    """
    state = manifest.details.get("state", {})
    if (record := state.get(table)) is None:
        return manifest  # Of an earlier version, which records no state.
    digest = hash_of_state(after, record)
    _require(manifest, {hash_of_state(before, record), digest}, record["content_hash"])
    amended = {**record, "rows": after.num_rows, "content_hash": digest}
    return _amended(manifest, {}, manifest.content_hash, state={**state, table: amended})


def of_inputs(manifest: Manifest, table: str, before: str, after: str) -> Manifest:
    """The features' manifest of a step whose validated changes of a table were rewritten."""
    inputs = manifest.details.get("inputs", {})
    if inputs.get(table) != before:
        return manifest
    return _amended(manifest, {}, manifest.content_hash, inputs={**inputs, table: after})


def of_serving(manifest: Manifest, before: pa.Table, after: pa.Table) -> Manifest:
    """Serving's manifest of a step; errors as of `of_state`."""
    digest = hash_of_serving(after, manifest)
    _require(manifest, {hash_of_serving(before, manifest), digest})
    return _amended(manifest, {"rows": after.num_rows}, digest)


def of_scores(manifest: Manifest, before: pa.Table, after: pa.Table) -> Manifest:
    """Evaluation's manifest of an interval; errors as of `of_state`."""
    as_stored = content_hash(before.drop_columns([INTERVAL]))  # As earlier versions hashed.
    digest = hash_of_scores(after)
    _require(manifest, {hash_of_scores(before), as_stored, digest})
    return _amended(manifest, {}, digest)


def _amended(manifest: Manifest, counts: dict[str, int], digest: str, **details: Any) -> Manifest:
    kept = dict(manifest.details) | details | {NOTE: True}
    counts = dict(manifest.counts) | counts
    return replace(manifest, counts=counts, content_hash=digest, details=kept)


def _require(manifest: Manifest, found: set[str], recorded: str | None = None) -> None:
    """Refuse to put damaged rows on record as if they were sound."""
    if (recorded or manifest.content_hash) not in found:
        raise CorruptPartition(
            f"the rows of {manifest.stage} {manifest.subject} {manifest.interval} are not the ones "
            f"on record, so nothing can be erased from them; `python -m pipelines verify --repair` "
            "first, then forget again"
        )
