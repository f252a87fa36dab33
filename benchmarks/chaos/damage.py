"""What people and disks do to an installation between two runs, and what a backup brings back."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.chaos import attempt
from benchmarks.chaos.shop import SHOP, SURFACE, Home
from pipelines.shared.intervals import Interval

MODEL: Final = f"{SHOP}-{SURFACE}"


@dataclass(frozen=True)
class Damage:
    """One thing that was damaged, and how an operator brings it back from a backup."""

    what: str
    restore: Callable[[], None]
    silent: bool = False
    """Whether only verification can see it."""
    rerun: Interval | None = None
    """The interval that brings it back when it is run again."""


def inflict(kind: str, home: Home, chance: random.Random) -> Damage | None:
    """Damage an installation; None where there is nothing of the kind yet."""
    return _KINDS[kind](home, chance)


def _alias(home: Home, chance: random.Random) -> Damage | None:
    with closing(sqlite3.connect(home.mlflow, timeout=60)) as db, db:
        versions = [
            number
            for (number,) in db.execute(
                "SELECT version FROM model_versions WHERE current_stage <> 'Deleted_Internal'"
            )
        ]
        if not versions:
            return None
        db.execute("DELETE FROM registered_model_aliases")
        moved = chance.choice([None, *versions])
        if moved is not None:
            values = (MODEL, "champion", moved)
            columns = "(name, alias, version)"
            db.execute(f"INSERT INTO registered_model_aliases {columns} VALUES (?, ?, ?)", values)
    return Damage(f"the alias is moved to {moved}", _nothing)


def _version(home: Home, chance: random.Random) -> Damage | None:
    with closing(sqlite3.connect(home.mlflow)) as db:
        versions = db.execute(
            "SELECT v.version, t.value FROM model_versions v JOIN model_version_tags t "
            "ON t.name = v.name AND t.version = v.version AND t.key = 'freshrank.interval' "
            "WHERE v.current_stage <> 'Deleted_Internal' ORDER BY v.version"
        ).fetchall()
    if not versions:
        return None
    (number, interval), copy = chance.choice(versions), home.folder / "mlflow.backup"
    shutil.copy(home.mlflow, copy)

    def delete(_: Callable[[str], None]) -> Any:
        from mlflow import MlflowClient

        uri = home.settings.mlflow_uri.get_secret_value()
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.delete_model_version(MODEL, str(number))

    ended = attempt.begin(home.folder / "attempts", delete).end()
    if ended.how != "done":
        raise RuntimeError(f"the version could not be deleted: {ended.error}")
    return Damage(
        f"version {number} is deleted", lambda: _copied(copy, home.mlflow),
        rerun=Interval.of(*interval.split("/")),
    )  # fmt: skip


def _model(home: Home, chance: random.Random) -> Damage | None:
    texts = [path for path in sorted((home.lake / "models").rglob("*")) if path.is_file()]
    return _broken(home, chance.choice(texts), chance) if texts else None


def _data(home: Home, chance: random.Random) -> Damage | None:
    # A table first: there are many more files of some than of others.
    logs = sorted(home.lake.rglob("_delta_log"))
    tables = [
        files for log in logs if (files := sorted(log.parent.glob("interval_start=*/*.parquet")))
    ]
    return _broken(home, chance.choice(chance.choice(tables)), chance) if tables else None


def _log(home: Home, chance: random.Random) -> Damage | None:
    logs = sorted(home.lake.rglob("_delta_log"))
    if not logs:
        return None
    log = chance.choice(logs)
    copy = home.folder / "log.backup"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(log, copy)
    last = sorted(log.glob("*.json"))[-1]
    return _broken(home, last, chance, lambda: _copied_folder(copy, log))


def _broken(
    home: Home, path: Path, chance: random.Random, restore: Callable[[], None] | None = None
) -> Damage:
    content = path.read_bytes()
    how = chance.choice(["truncated", "flipped", "emptied", "deleted"])
    if restore is not None and how == "deleted":
        how = "truncated"  # A log without its last entry is an older table, and no damage to see.
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        place = chance.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x20]) + content[place + 1 :])
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
    what = f"{path.relative_to(home.folder)} is {how}"
    return Damage(what, restore or _nothing, silent=how == "flipped")


def _nothing() -> None:
    """`verify --repair` or the next run brings it back."""


def _copied(copy: Path, to: Path) -> None:
    shutil.copy(copy, to)


def _copied_folder(copy: Path, to: Path) -> None:
    shutil.rmtree(to)
    shutil.copytree(copy, to)


_KINDS: Final[dict[str, Callable[[Home, random.Random], Damage | None]]] = {
    "alias": _alias,
    "version": _version,
    "model": _model,
    "data": _data,
    "log": _log,
}
KINDS: Final = tuple(_KINDS)
