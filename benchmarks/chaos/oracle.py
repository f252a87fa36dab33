"""What an installation holds, read without a line of the product's code.

Parquet is read by DuckDB from the file list of `deltalake`, ledger and registry through plain SQL,
the source through its own driver. Everything is told without numbers, times and paths that differ
between two installations: a version by its content hash, a partition by the hash of its rows.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from benchmarks.chaos.history import COLUMNS, Week
from benchmarks.chaos.shop import SHOP, SURFACE, Home, interval_of

Facts = dict[str, Any]
"""Section → name → value; JSON-able."""


def facts(home: Home, weeks: list[Week]) -> Facts:
    """What an installation holds after some weeks. Starts threads: call it in a child."""
    lake = dict(_partitions(home.lake))
    names = _version_names(home.ledger)
    lost, doubled, wrong = _against_history(home, weeks)
    return {
        "lake": {key: [rows, digest] for key, (rows, digest, _) in sorted(lake.items())},
        "models": dict(sorted(_models(home.lake))),
        "ledger": dict(_manifests(home.ledger)),
        "versions": sorted(set(names.values())),
        "decisions": _decisions(home.ledger, names),
        "registry": _registry(home.mlflow),
        "lists": _lists(home.source, names),
        "truth": {"rows_lost": lost, "rows_doubled": doubled, "wrong": wrong},
    }


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two facts differ; a line each."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted(one.keys() | other.keys())
            for line in differences(one.get(key), other.get(key), f"{where}/{key}")
        ]
    return [] if one == other else [f"{where}: {str(one)[:300]} instead of {str(other)[:300]}"]


def _partitions(lake: Path) -> Iterator[tuple[str, tuple[int, str, list[str]]]]:
    """Table and partition → rows, hash of them, their files."""
    import duckdb

    with duckdb.connect() as db:
        for table, part, files in _files(lake):
            columns = [row[0] for row in db.execute(_DESCRIBE, [files]).fetchall()]
            chosen = ", ".join(f'"{name}"' for name in sorted(columns))
            count, digest = _one(
                db.execute(
                    "SELECT count(*), md5(coalesce(string_agg(h, '' ORDER BY h), '')) FROM "
                    f"(SELECT md5(row({chosen})::varchar) AS h FROM read_parquet(?, "
                    "union_by_name = true, hive_partitioning = false))",
                    [files],
                )
            )
            if count:
                yield f"{table} {part}", (int(count), str(digest), files)


_DESCRIBE = (
    "DESCRIBE SELECT * FROM read_parquet(?, union_by_name = true, hive_partitioning = false)"
)


def _one(cursor: Any) -> Any:
    (row,) = cursor.fetchall()
    return row


def _files(lake: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Table, partition, files of every partition, by the tables' logs."""
    import pyarrow as pa
    from deltalake import DeltaTable

    for log in sorted(lake.rglob("_delta_log")):
        table = log.parent
        actions = pa.table(DeltaTable(str(table)).get_add_actions(flatten=True)).to_pylist()
        by_part: dict[str, list[str]] = {}
        for action in sorted(actions, key=lambda action: str(action["path"])):
            files = by_part.setdefault(str(action["partition.interval_start"]), [])
            files.append(str(table / unquote(action["path"])))
        for part, files in sorted(by_part.items()):
            yield table.relative_to(lake).as_posix(), part, files


def _models(lake: Path) -> Iterator[tuple[str, str]]:
    for path in (lake / "models").rglob("*"):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield path.relative_to(lake).as_posix(), digest


def _manifests(ledger: Path) -> Iterator[tuple[str, Any]]:
    with closing(sqlite3.connect(ledger)) as db:
        rows = db.execute(
            "SELECT stage, subject, interval_start, interval_end, counts, content_hash "
            "FROM freshrank_manifests WHERE shop = ? ORDER BY id",
            (SHOP,),
        ).fetchall()
    for stage, subject, start, end, counts, digest in rows:
        yield f"{stage} {subject} {start} {end}", [json.loads(counts), digest]


def _version_names(ledger: Path) -> dict[int | None, str]:
    """Number → what the version is, in words that hold in any installation."""
    with closing(sqlite3.connect(ledger)) as db:
        rows = db.execute(
            "SELECT version, interval_start, strategy, content_hash, trained_through, trees "
            "FROM freshrank_versions WHERE shop = ? AND surface = ?",
            (SHOP, SURFACE),
        ).fetchall()
    return {row[0]: " ".join(map(str, row[1:])) for row in rows}


def _decisions(ledger: Path, names: dict[int | None, str]) -> dict[str, Any]:
    with closing(sqlite3.connect(ledger)) as db:
        rows = db.execute(
            "SELECT interval_start, interval_end, outcome, compared_with, promoted, reasons "
            "FROM freshrank_decisions WHERE shop = ? AND surface = ?",
            (SHOP, SURFACE),
        ).fetchall()
    return {
        f"{start} {end}": [outcome, names.get(before), names.get(after), json.loads(reasons)]
        for start, end, outcome, before, after, reasons in rows
    }


def _registry(mlflow: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(mlflow)) as db:
        contents = dict(
            db.execute(
                "SELECT v.version, t.value FROM model_versions v JOIN model_version_tags t "
                "ON t.name = v.name AND t.version = v.version "
                "AND t.key = 'freshrank.content_hash' "
                "WHERE v.current_stage <> 'Deleted_Internal'"
            ).fetchall()
        )
        aliases = db.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
        runs = db.execute(
            "SELECT coalesce(i.value, ''), coalesce(s.value, '') FROM runs r "
            "LEFT JOIN tags i ON i.run_uuid = r.run_uuid AND i.key = 'freshrank.interval' "
            "LEFT JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'freshrank.strategy' "
            "WHERE r.lifecycle_stage = 'active'"
        ).fetchall()
    return {
        "aliases": {alias: contents.get(version, "none") for alias, version in aliases},
        "versions": sorted(contents.values()),
        "runs": sorted(map(list, runs)),
    }


def _lists(source: Path, names: dict[int | None, str]) -> list[Any]:
    table = f"freshrank_{SURFACE}"
    with closing(sqlite3.connect(source)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchall():
            return []
        rows = db.execute(
            "SELECT shopper_id, rank, item_id, score, version, interval_start "
            f"FROM {table} ORDER BY 1, 2"
        ).fetchall()
    return [[*row[:4], names.get(row[4]), row[5]] for row in rows]


def _against_history(home: Home, weeks: list[Week]) -> tuple[int, int, list[str]]:
    """Rows lost and doubled by extraction or validation, and what else is not as committed."""
    import duckdb

    lost = doubled = 0
    wrong: list[str] = []
    files = {(table, part): each for table, part, each in _files(home.lake)}
    with duckdb.connect() as db:

        def held(room: str, table: str, key: str) -> Counter[tuple[str, Any]]:
            chosen = files.get((f"{room}/{table}", key))
            if not chosen:
                return Counter()
            column = COLUMNS[table][0]
            rows = db.execute(f'SELECT _op, "{column}" FROM read_parquet(?)', [chosen])
            return Counter(rows.fetchall())

        for week in weeks:
            key = interval_of(week).key
            for table in COLUMNS:
                changes = [each for each in week.changes if each.table == table]
                committed: Counter[tuple[str, Any]] = Counter(
                    (each.op, each.key) for each in changes
                )
                unsound: Counter[tuple[str, Any]] = Counter(
                    (each.op, each.key) for each in changes if not each.sound
                )
                extracted = held("changes", table, key)
                valid, quarantined = (held(room, table, key) for room in ("valid", "quarantine"))
                for found in (extracted, valid + quarantined):
                    lost += (committed - found).total()
                    doubled += (found - committed).total()
                if quarantined != unsound:
                    wrong.append(f"quarantine of {table} {key}: {quarantined} not {unsound}"[:300])
        wrong += _folded(db, home, files, weeks)
    return lost, doubled, wrong


def _folded(
    db: Any, home: Home, files: dict[tuple[str, str], list[str]], weeks: list[Week]
) -> Iterator[str]:
    """The changes, folded, and the source, against the rows that the history leaves."""
    for table, names in COLUMNS.items():
        stored = [name for name in names if name != "email"]
        every = [
            file
            for (place, _), each in files.items()
            if place == f"changes/{table}"
            for file in each
        ]
        chosen = ", ".join(f'"{name}"' for name in stored)
        rows = db.execute(
            f'SELECT {chosen} FROM (SELECT *, row_number() OVER (PARTITION BY "{names[0]}" '
            "ORDER BY _position DESC) AS age FROM read_parquet(?, union_by_name = true)) "
            "WHERE age = 1 AND _op <> 'delete'",
            [every],
        ).fetchall()
        yield from _unequal(f"{table} folded", rows, _standing(table, weeks, stored))
        with closing(sqlite3.connect(home.source)) as source:
            ((last,),) = source.execute("SELECT max(at) FROM freshrank_chaos_clock")
            if last <= weeks[-1].end.timestamp() * 1e6:
                rows = source.execute(f"SELECT {chosen} FROM {table}").fetchall()
                yield from _unequal(f"{table} itself", rows, _standing(table, weeks, stored))


def _standing(table: str, weeks: list[Week], stored: list[str]) -> list[tuple[Any, ...]]:
    """The rows that the history leaves."""
    standing: dict[Any, tuple[Any, ...]] = {}
    for change in (change for week in weeks for change in week.changes if change.table == table):
        if change.op == "delete":
            standing.pop(change.key, None)
        else:
            row = dict(zip(COLUMNS[table], change.row, strict=True))
            standing[change.key] = tuple(row[name] for name in stored)
    return list(standing.values())


def _unequal(
    what: str, rows: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]
) -> Iterator[str]:
    found, wanted = (Counter(tuple(map(_plain, row)) for row in each) for each in (rows, expected))
    for row in [*(found - wanted)][:2]:
        yield f"{what} has {str(row)[:200]}"
    for row in [*(wanted - found)][:2]:
        yield f"{what} lacks {str(row)[:200]}"


def _plain(value: Any) -> str:
    """A value in one form, whichever driver read it."""
    if isinstance(value, float | Decimal):
        return f"{float(value):.6g}"
    text = str(value).removesuffix("+00:00")
    try:
        return f"{float(text):.6g}"
    except ValueError:
        return text
