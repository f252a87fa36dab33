"""What is known of the kept installation, as plain JSON-able values.

`make_installation.py` wrote them down with the code that made it; `test_installation.py` asks
today's code for them again. Nothing is hashed by the project's own code here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from mlflow import MlflowClient

from pipelines import maintain
from pipelines.inspect import status
from pipelines.inspect.history import rows_at as rows_of
from pipelines.maintain.upkeep import tables
from pipelines.shared.errors import Expired
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Decision, Manifest
from pipelines.shared.models import booster, vocabulary
from pipelines.shared.run import Installation
from pipelines.shared.settings import Settings

SHOP = "golden"
FIRST = datetime(2021, 3, 1, tzinfo=UTC)
WEEK = timedelta(weeks=1)
WEEKS = [Interval(FIRST + number * WEEK, FIRST + (number + 1) * WEEK) for number in range(4)]
"""The first three are decided in the kept installation, the last one is not extracted yet."""
STAGES = ("extract", "validate", "features", "train", "evaluate", "promote", "publish")
KEYS = ("group_id", "shopper_id", "item_id", "label", "shown_position")
NOWHERE = "/INSTALLATION"
"""Stands in the archive for the folder of the installation: MLflow keeps absolute paths."""


def settings(folder: Path) -> Settings:
    """Settings of an installation in a folder."""
    return Settings(
        lake=str(folder / "lake"),
        ledger_url=f"sqlite:///{folder}/ledger.db",
        mlflow_uri=f"sqlite:///{folder}/mlflow.db",
        connections={
            name: f"sqlite:///{folder}/{file}.db"
            for name, file in (("web", "shop"), ("pim", "catalogue"), ("deals", "deals"))
        },
        shop=SHOP,
        shops=folder / "shops",
        expectations=folder / "expectations",
        pseudonym_key="a key for tests",
    )


def relocate(folder: Path, before: str, after: str) -> None:
    """Rewrite the absolute paths that MLflow keeps, in its database and beside its models."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as db, db:
        names = "SELECT name FROM sqlite_master WHERE type = 'table'"
        for (table,) in db.execute(names).fetchall():
            for _, column, *_ in db.execute(f"PRAGMA table_info('{table}')").fetchall():
                db.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) '
                    f'WHERE typeof("{column}") = \'text\' AND instr("{column}", ?)',
                    (before, after, before),
                )
    for path in (folder / "lake" / SHOP / "mlflow").rglob("MLmodel"):
        path.write_text(path.read_text("utf-8").replace(before, after), "utf-8")


def of(installation: Installation) -> dict[str, Any]:
    """All that can be read of an installation without changing it."""
    ledger, lake, end = installation.ledger, installation.lake, WEEKS[2].end
    champion = ledger.champion()
    assert champion is not None
    version = ledger.version(champion)
    model = lake.local_root / version.artifact
    serving = lake.read("serving/search", [WEEKS[2]])
    serving = serving.sort_by([("shopper_id", "ascending"), ("item_id", "ascending")])
    return {
        "verified": _verified(installation),
        "manifests": [_manifest(each) for stage in STAGES for each in ledger.manifests(stage)],
        "versions": [
            {"version": each.version, "strategy": each.strategy, "parent": each.parent,
             "trees": each.trees, "artifact": each.artifact, "content_hash": each.content_hash}
            for each in ledger.versions()
        ],
        "decisions": [_decision(each) for each in ledger.decisions()],
        "status": status.report_of(installation),
        "champion": champion,
        "alias": int(
            MlflowClient(tracking_uri=installation.settings.mlflow_uri.get_secret_value())
            .get_model_version_by_alias(f"{SHOP}-search", "champion")
            .version
        ),
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "features": list(booster.card(model).features),
        "categorical": list(booster.card(model).categorical),
        "vocabulary": vocabulary.read(lake, end),
        "scores": booster.score(model, serving, 1).tolist(),
        "rows_at": {
            table: {f"{at:%F %T}": rows_at(installation, table, at) for at in moments(end)}
            for table in installation.shop.tables
        },
        "lake": partitions(installation, WEEKS[:3]),
    }  # fmt: skip


def of_last(installation: Installation) -> dict[str, Any]:
    """What the last week came to, as far as another machine has to say the same.

    Trees, and with them scores and gains, may differ in their last digits elsewhere. Of features
    there is a mean of each column, weighted by the row's place, so that no two rows change sides.
    """
    ledger, last = installation.ledger, WEEKS[3]
    built = ledger.manifest("features", "search", last)
    trained = ledger.manifest("train", "search", last)
    assert built is not None
    assert trained is not None
    groups = installation.lake.read("groups/search", [last])
    groups = groups.sort_by([("group_id", "ascending"), ("item_id", "ascending")])
    (decision,) = [each for each in ledger.decisions() if each.interval == last]
    return {
        "verified": _verified(installation),
        "split": [
            _manifest(each)
            for stage in ("extract", "validate")
            for each in ledger.manifests(stage)
            if each.interval == last
        ],
        "groups": dict(built.counts),
        "keys": digest(groups.select([name for name in KEYS if name in groups.column_names])),
        "features": {name: weighed(groups[name]) for name in built.details["features"]},
        "challengers": [each["strategy"] for each in trained.details["challengers"]],
        "parent": decision.compared_with,
        "outcome": decision.outcome,
        "promoted": decision.promoted,
        "rows_at": {
            table: rows_at(installation, table, last.end) for table in installation.shop.tables
        },
        "lake": partitions(installation, WEEKS),
    }


def moments(end: datetime) -> tuple[datetime, ...]:
    """The end of the second and third week, and a time within the third."""
    return end - WEEK, end - timedelta(days=3, hours=5), end


def rows_at(installation: Installation, table: str, at: datetime) -> list[Any] | str:
    """How many rows a table held at a time, and their digest; or that nobody can tell any more."""
    try:
        with rows_of(installation, table, at) as reader:
            rows = reader.read_all()
    except Expired as error:
        return type(error).__name__
    return [rows.num_rows, digest(rows)]


def partitions(installation: Installation, weeks: Iterable[Interval]) -> dict[str, list[int]]:
    """Rows of each week in each table of the lake that has any."""
    lake = installation.lake
    present = [table for table in tables(installation) if lake.exists(table)]
    return {table: [lake.count(table, week) for week in weeks] for table in present}


def digest(rows: pa.Table) -> str:
    """A digest of rows in their order, by the names and the text of their values."""
    text = json.dumps([rows.column_names, rows.to_pylist()], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def weighed(column: Any) -> list[float]:
    """How many values are there, and the mean of these, each weighted by its place."""
    values = np.asarray(column.to_numpy(), dtype=np.float64)
    there = np.isfinite(values)
    weights = np.linspace(1, 2, len(values))[there]
    return [int(there.sum()), float((values[there] * weights).mean()) if there.any() else 0.0]


def _manifest(each: Manifest) -> dict[str, Any]:
    """A manifest as far as it does not tell the time of the day, see `lag_s` and `position`."""
    details = {name: each.details[name] for name in ("taken", "expired", "migrated", "source")
            if name in each.details}  # fmt: skip
    return {
        "stage": each.stage, "subject": each.subject, "interval": each.interval.key,
        "counts": dict(each.counts), "content_hash": each.content_hash, "details": details,
    }  # fmt: skip


def _decision(each: Decision) -> dict[str, Any]:
    return {
        "interval": each.interval.key, "outcome": each.outcome, "promoted": each.promoted,
        "compared_with": each.compared_with, "reasons": list(each.reasons),
    }  # fmt: skip


def _verified(installation: Installation) -> dict[str, Any]:
    """A verification, less the number of manifests: later versions verify more stages."""
    report = maintain.verify(installation).as_dict()
    return {name: value for name, value in report.items() if name != "checked"}
