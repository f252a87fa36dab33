"""A manifest is stored in the ledger's database as version 0.1.0 stored it, and is read from there.

The row is written and read with the database's own driver, so that the ledger's code is not asked
about itself.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Ledger, Manifest

MANIFEST = Manifest(
    stage="extract",
    subject="orders",
    interval=Interval.of("2017-01-02", "2017-01-09"),
    counts={"rows": 3, "insert": 2, "update": 0, "delete": 1},
    content_hash="5e" * 32,
    position={"sequence": 41, "end": "2017-01-09T00:00:00+00:00"},
    details={
        "columns": ["order_id", "_op", "_committed_at", "_position", "_transaction"],
        "lag_s": {"max": 60, "median": 12},
        "source": "shop",
        "taken": {"note": "string"},
        "expired": "changes",
    },
    seconds=1.25,
)
STORED: dict[str, Any] = {
    "id": 1,
    "shop": "golden",
    "stage": "extract",
    "subject": "orders",
    "interval_start": "2017-01-02T00:00:00Z",
    "interval_end": "2017-01-09T00:00:00Z",
    "counts": '{"rows": 3, "insert": 2, "update": 0, "delete": 1}',
    "content_hash": "5e" * 32,
    "position": '{"sequence": 41, "end": "2017-01-09T00:00:00+00:00"}',
    "details": (
        '{"columns": ["order_id", "_op", "_committed_at", "_position", "_transaction"], '
        '"lag_s": {"max": 60, "median": 12}, "source": "shop", "taken": {"note": "string"}, '
        '"expired": "changes"}'
    ),
    "seconds": 1.25,
    "recorded_at": "2017-01-09T00:01:00.000+00:00",
}


def test_a_manifest_is_stored_as_it_was(tmp_path: Path) -> None:
    Ledger(f"sqlite:///{tmp_path}/ledger.db", "golden", "search").record(MANIFEST)
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.row_factory = sqlite3.Row
        (row,) = [dict(each) for each in db.execute("SELECT * FROM freshrank_manifests")]
    assert row | {"recorded_at": STORED["recorded_at"]} == STORED


def test_a_stored_manifest_is_read_and_not_recorded_again(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "golden", "search")
    names, places = ", ".join(STORED), ", ".join("?" * len(STORED))
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db, db:
        db.execute(
            f"INSERT INTO freshrank_manifests ({names}) VALUES ({places})", [*STORED.values()]
        )
    assert ledger.manifests("extract") == [MANIFEST]
    ledger.record(MANIFEST)
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert db.execute("SELECT count(*) FROM freshrank_manifests").fetchone() == (1,)
    assert json.loads(STORED["details"]) == MANIFEST.details
