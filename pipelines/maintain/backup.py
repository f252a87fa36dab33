"""A second copy of the lake, from which a damaged partition is restored.

Delta's data and log files are never changed once written, so a backup is a copy of those it does
not have yet: data first, then each table's log in order, so that the copy is a whole lake at every
moment. It keeps the versions of `KEEP` (a rule of its own: damage is often noticed late).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

import pyarrow.fs as pafs

from pipelines.shared.errors import CorruptPartition
from pipelines.shared.hashing import content_hash
from pipelines.shared.lake import Lake, in_source_order
from pipelines.shared.ledger import Manifest
from pipelines.shared.models import booster
from pipelines.shared.models.challengers import Challenger, Trained
from pipelines.shared.run import Installation

KEEP: Final = timedelta(days=35)
_LOG: Final = "_delta_log"
_CHUNK: Final = 8 << 20


def backup_lake(installation: Installation) -> Lake | None:
    """The backup as a lake; None where `FRESHRANK_BACKUP` is not set."""
    root = installation.settings.backup
    return Lake(root, installation.shop.shop) if root else None


def back_up(installation: Installation) -> int:
    """Copy what the backup does not have yet; a rerun finds nothing left to do.

    The copy's logs hold the lake's commits and no other: what the copy no longer needs is deleted
    without a commit, since an entry of its own would stand where a later one of the lake belongs.

    Returns:
        The number of files copied; 0 where no backup is set.

    Raises:
        CorruptPartition: a table's log is not the one that was copied, or is shorter: the lake
            lost commits, and the backup stays as it is.
    """
    backup = backup_lake(installation)
    if backup is None:
        return 0
    source, root = pafs.FileSystem.from_uri(_uri(installation.lake))
    target, copy = pafs.FileSystem.from_uri(_uri(backup))
    # The logs are listed first: every data file that they name is then listed as well.
    logs = {name: each for name, each in _files(source, root).items() if _LOG in name}
    data = {name: each for name, each in _files(source, root).items() if _LOG not in name}
    there = _files(target, copy)
    tables = {name.split(f"/{_LOG}/")[0] for name in (*logs, *there) if f"/{_LOG}/" in name}
    foreign = [
        name
        for table in sorted(tables)
        for name in _foreign(installation.lake, backup, table, logs, there)
    ]
    wanted = [
        *(name for name, each in data.items() if _wanted(each, there.get(name), tables, name)),
        *sorted(name for name in logs if name not in there or name in foreign),
    ]
    old = {
        f"{table}/{name}" for table in tables for name in installation.lake.unneeded(table, KEEP)
    }
    wanted = [name for name in wanted if name not in old and not _pointer(name)]
    for name in wanted:
        _copy(source, f"{root}/{name}", target, f"{copy}/{name}")
    for name in sorted(set(foreign) - set(logs), reverse=True):
        target.delete_file(f"{copy}/{name}")
    listed = {f"{root}/{name}" for name in logs}
    pointers = [
        _point(source, f"{root}/{name}", target, f"{copy}/{name}", listed)
        for name in filter(_pointer, logs)
    ]
    for table in tables:
        for name in backup.unneeded(table, KEEP):
            if f"{table}/{name}" in there:
                target.delete_file(f"{copy}/{table}/{name}")
    return len(wanted) + sum(pointers)


def purge(installation: Installation, folders: Iterable[str]) -> int:
    """Delete from the copy what some folders of the lake no longer have, in no version.

    Of a table these are the data files that its present version does not need, and the log's
    earlier entries; of any other folder the files that the lake has not. Back up first.

    Args:
        folders: names of tables and of other folders below the shop's part of the lake.

    Returns:
        The number of files deleted; 0 where no backup is set.
    """
    backup = backup_lake(installation)
    if backup is None:
        return 0
    source, root = pafs.FileSystem.from_uri(_uri(installation.lake))
    target, copy = pafs.FileSystem.from_uri(_uri(backup))
    deleted = 0
    for folder in folders:
        own = _files(source, f"{root}/{folder}")
        there = _files(target, f"{copy}/{folder}", halves=True)
        gone = [name for name in there if name not in own]
        if backup.exists(folder):
            unneeded = {*backup.unneeded(folder, timedelta(0)), *filter(_half, there)}
            gone = [name for name in gone if name.startswith(_LOG) or name in unneeded]
        for name in gone:
            target.delete_file(f"{copy}/{folder}/{name}")
        deleted += len(gone)
    return deleted


def restore(installation: Installation, manifest: Manifest) -> bool:
    """Restore what a manifest of extraction or training records, exactly as recorded.

    Returns:
        False where there is no backup, it does not hold exactly that, or another stage made it.
    """
    backup = backup_lake(installation)
    if backup is None:
        return False
    if manifest.stage == "train":
        models = Trained.of(manifest.details).challengers
        return bool(models) and all(_restore_model(installation, backup, each) for each in models)
    return manifest.stage == "extract" and _restore_changes(installation, backup, manifest)


def _restore_changes(installation: Installation, backup: Lake, manifest: Manifest) -> bool:
    table = f"changes/{manifest.subject}"
    try:
        rows = in_source_order(
            backup.read(table, [manifest.interval], manifest.details.get("columns"))
        )
    except (KeyError, CorruptPartition):
        return False
    if content_hash(rows) != manifest.content_hash:
        return False
    installation.lake.replace(table, manifest.interval, rows)
    return True


def _restore_model(installation: Installation, backup: Lake, model: Challenger) -> bool:
    source, root = pafs.FileSystem.from_uri(_uri(backup))
    target, own = pafs.FileSystem.from_uri(_uri(installation.lake))
    names = [model.artifact, booster.card_of(Path(model.artifact)).as_posix()]
    try:
        content = {name: _content(source, f"{root}/{name}") for name in names}
    except FileNotFoundError:
        return False
    if hashlib.sha256(content[model.artifact]).hexdigest() != model.content_hash:
        return False
    for name in names:
        _write(target, f"{own}/{name}", [content[name]])
    return True


def _uri(lake: Lake) -> str:
    root = lake.uri("").rstrip("/")
    return root if "://" in root else lake.local_root.absolute().as_uri()


def _files(files: pafs.FileSystem, root: str, *, halves: bool = False) -> dict[str, pafs.FileInfo]:
    """The files below a folder, by their names from there.

    Args:
        halves: whether those count that a killed writer left behind.
    """
    below = pafs.FileSelector(root, recursive=True, allow_not_found=True)
    return {
        each.path.removeprefix(root).lstrip("/"): each
        for each in files.get_file_info(below)
        if each.type is pafs.FileType.File and (halves or not _half(each.path))
    }


def _half(name: str) -> bool:
    """Whether this is a file that is being written, or was when its writer was killed."""
    return name.endswith(".part")


def _wanted(own: pafs.FileInfo, copied: pafs.FileInfo | None, tables: set[str], name: str) -> bool:
    """Whether a file is copied: a missing one, or one beside the tables that was written again.

    A table's data file, or a model, never changes under its name: if it did, it is damaged, and
    its copy good.
    """
    if copied is None:
        return True
    if any(name.startswith(f"{folder}/") for folder in (*tables, "models")):
        return False
    return bool(own.size != copied.size or (own.mtime_ns or 0) > (copied.mtime_ns or 0))


def _pointer(name: str) -> bool:
    """Whether this is the one file of a log that is rewritten."""
    return name.endswith("/_last_checkpoint")


def _foreign(
    lake: Lake,
    backup: Lake,
    table: str,
    logs: Mapping[str, pafs.FileInfo],
    there: Mapping[str, pafs.FileInfo],
) -> list[str]:
    """Entries of the copy's log that are not the lake's: vacuums that earlier versions committed.

    Raises:
        CorruptPartition: an entry of the copy is neither the lake's nor a vacuum.
    """
    source, _ = pafs.FileSystem.from_uri(_uri(lake))
    target, _ = pafs.FileSystem.from_uri(_uri(backup))
    entry = re.compile(rf"{re.escape(table)}/{_LOG}/\d+\.json")
    own = sorted(filter(entry.fullmatch, logs))
    foreign = []
    for name in filter(entry.fullmatch, there):
        if name in logs:
            same = logs[name].size == there[name].size and (
                _content(source, logs[name].path) == _content(target, there[name].path)
            )
        else:  # The lake may have forgotten an entry that lies before a checkpoint.
            same = bool(own) and name < own[-1]
        if not same and not _is_vacuum(_content(target, there[name].path)):
            raise CorruptPartition(
                f"{lake.uri(table)}: its log differs from its backup's, {backup.uri(table)}, at "
                f"{name.rpartition('/')[2]}: the lake lost what was written since; copy the table "
                "back from the backup, or move the backup away if the lake is a new one"
            )
        if not same:
            foreign.append(name)
    return foreign


def _is_vacuum(entry: bytes) -> bool:
    try:
        actions = [json.loads(line) for line in entry.splitlines() if line.strip()]
    except ValueError:
        return False  # Damaged: whose entry it was cannot be read.
    return len(actions) == 1 and str(
        actions[0].get("commitInfo", {}).get("operation", "")
    ).startswith("VACUUM")


def _point(
    source: pafs.FileSystem, path: str, target: pafs.FileSystem, to: str, listed: set[str]
) -> bool:
    """Copy a pointer that has changed, unless it names a checkpoint that came after the listing."""
    content = _content(source, path)
    version = json.loads(content)["version"]
    folder = path.rpartition("/")[0]
    if not any(name.startswith(f"{folder}/{version:020}.checkpoint") for name in listed):
        return False
    if target.get_file_info(to).type is pafs.FileType.File and _content(target, to) == content:
        return False
    _write(target, to, [content])
    return True


def _content(files: pafs.FileSystem, path: str) -> bytes:
    with files.open_input_stream(path) as read:
        return bytes(read.read())


def _copy(source: pafs.FileSystem, path: str, target: pafs.FileSystem, to: str) -> None:
    with source.open_input_stream(path) as read:
        _write(target, to, iter(lambda: read.read(_CHUNK), b""))


def _write(target: pafs.FileSystem, to: str, chunks: Iterable[bytes]) -> None:
    """One file, whole or not at all."""
    target.create_dir(to.rpartition("/")[0], recursive=True)
    with target.open_output_stream(f"{to}.part") as write:
        for chunk in chunks:
            write.write(chunk)
    target.move(f"{to}.part", to)
