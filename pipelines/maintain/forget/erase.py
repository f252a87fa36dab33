"""Erases rows from the lake, a partition at a time.

A manifest is amended before its rows go: a kill in between leaves rows that the next attempt finds
and erases, never a gap that looks like damage. For the same reason rows that are known by their
key alone go before the rows that say whose key it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.maintain.forget import amend
from pipelines.maintain.forget.places import (
    SPLIT,
    Family,
    count,
    joined,
    nameless,
    own_keys,
    partitions,
)
from pipelines.maintain.upkeep import lock
from pipelines.shared.columns import EXPIRED, INTERVAL
from pipelines.shared.errors import CorruptPartition
from pipelines.shared.forgotten import Forgotten
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Installation

Theirs = Callable[[pa.Table], Any]
"""A mask of the rows to erase."""


def erase(installation: Installation, forgotten: Forgotten, family: Family) -> Counter[str]:
    """Erase every row of some shoppers from the tables of a family.

    Returns:
        Table → rows erased.

    Raises:
        CorruptPartition: a partition with such rows is not as its manifest says.
        LakeFull: there is no room to write a partition again.
    """
    keys = own_keys(installation.lake, family, forgotten)
    erased = Counter[str]()
    if family.source is not None:
        _forget_pages(installation, forgotten, family)
        erased += _erase_index(installation, family, keys)

    def by_key(rows: pa.Table) -> Any:
        alone = pc.is_in(joined(rows, family.key), value_set=keys)
        return pc.and_(nameless(rows, family), alone)

    def by_id(rows: pa.Table) -> Any:
        return forgotten.theirs(rows, family.columns)

    for theirs in (by_key, by_id) if len(keys) else (by_id,):
        if family.source is not None:
            erased += _erase_changes(installation, family, theirs)
        elif family.tables[0].startswith("group_index/"):
            erased += _erase_groups(installation, family, theirs)
        else:
            for table in family.tables:
                erased += _erase_plain(installation, family, table, theirs)
    return erased


def _found(installation: Installation, family: Family, table: str, theirs: Theirs) -> Iterator[str]:
    """Keys of the partitions of a table with rows to erase."""
    for key, rows in partitions(installation.lake, family, table):
        if count(theirs(rows)):
            yield key


def _erase_plain(
    installation: Installation, family: Family, table: str, theirs: Theirs
) -> Counter[str]:
    erased = 0
    for key in list(_found(installation, family, table, theirs)):
        _amend_plain(installation, table, key, theirs)
        erased += _rewrite(installation, table, key, theirs)
    return Counter({table: erased})


def _amend_plain(installation: Installation, table: str, key: str, theirs: Theirs) -> None:
    """Amend the manifest that records a partition of the state, of scores or of serving."""
    part, surface = table.partition("/")[0], installation.shop.surface.name
    stage = {"scores": "evaluate", "serving": "serve"}.get(part, "features")
    manifest = _manifest(installation, stage, surface, key)
    if manifest is None:
        return
    before, after = _split(installation, table, key, theirs)
    if stage == "features":
        amended = amend.of_state(manifest, table, before, after)
    elif stage == "serve":
        amended = amend.of_serving(manifest, before, after)
    else:
        amended = amend.of_scores(manifest, before, after)
    installation.ledger.record(amended)


def _erase_changes(installation: Installation, family: Family, theirs: Theirs) -> Counter[str]:
    """Erase from a source table's changes, then from what validation made of them."""
    erased = Counter[str]()
    changes, *parts = family.tables
    for key in list(_found(installation, family, changes, theirs)):
        _amend_extracted(installation, changes, key, theirs)
        erased[changes] += _rewrite(installation, changes, key, theirs)
    for key in sorted(
        {key for table in parts for key in _found(installation, family, table, theirs)}
    ):
        _amend_validated(installation, str(family.source), key, theirs)
        for table in parts:
            erased[table] += _rewrite(installation, table, key, theirs)
    return erased


def _amend_extracted(installation: Installation, changes: str, key: str, theirs: Theirs) -> None:
    with lock(installation, changes) as held:
        manifest = _manifest(installation, "extract", changes.partition("/")[2], key)
        if manifest is not None and EXPIRED not in manifest.details:
            before, after = _split(installation, changes, key, theirs)
            installation.ledger.record(amend.of_changes(manifest, before, after), held)


def _amend_validated(installation: Installation, subject: str, key: str, theirs: Theirs) -> None:
    """Amend validation's manifest; and extraction's, where only validation's rows are left."""
    ledger, tables = installation.ledger, [f"{part}/{subject}" for part in SPLIT]
    manifest = _manifest(installation, "validate", subject, key)
    if manifest is None:
        return
    extracted = ledger.manifest("extract", subject, manifest.interval)
    valid, quarantined = (_split(installation, table, key, theirs) for table in tables[1:])
    parts = zip(valid, quarantined, strict=True)
    amended = amend.of_split(manifest, next(parts), next(parts), extracted)
    if extracted is not None and EXPIRED in extracted.details:
        with lock(installation, tables[0]) as held:
            ledger.record(amend.of_expired(extracted, amended), held)
    with lock(installation, tables[1]) as held:
        ledger.record(amended, held)
    folded = _manifest(installation, "features", installation.shop.surface.name, key)
    if folded is not None:
        ledger.record(amend.of_inputs(folded, subject, manifest.content_hash, amended.content_hash))


def _erase_groups(installation: Installation, family: Family, theirs: Theirs) -> Counter[str]:
    """Erase from the groups and their index, which share a manifest, and from the rest."""
    erased = Counter[str]()
    index, groups, *others = family.tables
    for table in others:
        erased += _erase_plain(installation, family, table, theirs)
    for key in sorted(
        {key for table in (index, groups) for key in _found(installation, family, table, theirs)}
    ):
        manifest = _manifest(installation, "features", index.partition("/")[2], key)
        if manifest is not None:
            stored, kept = _split(installation, groups, key, theirs)
            whole, left = _split(installation, index, key, theirs)
            amended = amend.of_groups(manifest, stored, kept, left)
            installation.ledger.record(amend.of_state(amended, index, whole, left))
        for table in (groups, index):
            erased[table] += _rewrite(installation, table, key, theirs)
    return erased


def _manifest(installation: Installation, stage: str, subject: str, key: str) -> Manifest | None:
    known = installation.ledger.manifests(stage, subject, utc(key))
    return next((each for each in known if each.interval.key == key), None)


def _split(
    installation: Installation, table: str, key: str, theirs: Theirs
) -> tuple[pa.Table, pa.Table]:
    """A partition's rows, and those that stay."""
    if not installation.lake.exists(table):
        raise CorruptPartition(f"{table} is gone with all its partitions")
    rows = installation.lake.read(table, [key])
    kept: Any = pc.invert(theirs(rows))
    return rows, rows.filter(kept)


def _rewrite(installation: Installation, table: str, key: str, theirs: Theirs) -> int:
    """Write a partition again without some rows; returns how many."""
    with lock(installation, table):
        before, after = _split(installation, table, key, theirs)
        if gone := before.num_rows - after.num_rows:
            installation.lake.replace(table, _interval(key), after.drop_columns([INTERVAL]))
    return int(gone)


def _interval(key: str) -> Interval:
    """An interval of which only the start, which addresses a partition, is right."""
    return Interval(utc(key), utc(key) + timedelta(days=1))


def _erase_index(installation: Installation, family: Family, keys: Any) -> Counter[str]:
    """Erase keys from the index that a cursor source keeps of them."""
    from pipelines.extract.cursor.key_index import erase_keys

    theirs = partial(_is_key, family, keys)
    name = str(family.source)
    with lock(installation, f"changes/{name}"):
        gone = erase_keys(installation.lake, name, theirs) if len(keys) else 0
    return Counter({f"key_index/{name}": gone}) if gone else Counter()


def _is_key(family: Family, keys: Any, rows: Any) -> Any:
    return pc.is_in(joined(rows, family.key), value_set=keys)


def _forget_pages(installation: Installation, forgotten: Forgotten, family: Family) -> None:
    """Delete validation's pages of partitions with rows of theirs, and what it observed there.

    Of an interval whose changes expired nobody can say whose rows it had: its page goes as well.
    """
    from pipelines.validate.docs import data_docs

    lake, ledger, subject = installation.lake, installation.ledger, str(family.source)

    def theirs(rows: pa.Table) -> Any:
        return forgotten.theirs(rows, family.columns)

    touched = {
        key for table in family.tables for key in _found(installation, family, table, theirs)
    }
    if not touched:
        return
    expired = {
        each.interval.key
        for each in ledger.manifests("extract", subject)
        if EXPIRED in each.details
    }
    for key in sorted(touched | expired):
        page = data_docs(lake.local_root, subject, _interval(key))
        page.unlink(missing_ok=True)
        page.with_suffix(".part").unlink(missing_ok=True)  # Of a writer that was killed.
    for manifest in ledger.manifests("validate", subject):
        if manifest.interval.key in touched | expired:
            ledger.strike("validate", subject, manifest.interval, "page")
        if manifest.interval.key in touched:
            ledger.strike("validate", subject, manifest.interval, "batch")
