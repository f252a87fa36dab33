"""Laws 1 and 2 for extraction: a rerun is the same run, no change is lost or doubled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from pipelines.extract.source import ChangeBatch
from pipelines.extract.stage import extract
from pipelines.shared.errors import CaptureMissing, CorruptPartition, DeclarationError
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings
from tests.extract.list_source import ListSource
from tests.extract.postgres_shop import DECLARED, tiny

TABLE = "articles"
WEEKS = [
    Interval.of(start, end)
    for start, end in (
        ("2017-01-02", "2017-01-09"),
        ("2017-01-09", "2017-01-16"),
        ("2017-01-16", "2017-01-23"),
        ("2017-01-23", "2017-01-30"),
    )
]
PROJECT = Path(__file__).parents[2]


def living_source() -> ListSource:
    """Four weeks of one article a day, each changed two days later; a late row in week three."""
    source = ListSource(tiny())
    for day in range(2, 30):
        transaction = source.begin(f"2017-01-{day:02d}T12:00:00")
        transaction.insert(TABLE, _article(f"sku {day}", "fresh"))
        if day > 4:
            transaction.update(TABLE, _article(f"sku {day - 2}", "stale"))
        transaction.commit()
    late = source.begin("2017-01-01")
    late.insert(TABLE, _article("late", "fresh"))
    late.commit()
    return source


def _article(sku: str, kind: str) -> dict[str, Any]:
    return {"sku": sku, "kind": kind, "maker": None, "amount": None}


def run_of(folder: Path, interval: Interval) -> Run:
    folder.mkdir(exist_ok=True)
    settings = Settings(
        lake=str(folder / "lake"),
        ledger_url=f"sqlite:///{folder}/ledger.db",
        mlflow_uri="",
        shops=DECLARED,
    )
    return Run(settings, tiny(), interval)


def outcome(folder: Path) -> tuple[Any, Any]:
    """Rows of the lake by partition, and what the ledger says (less times and seconds)."""
    run = run_of(folder, WEEKS[0])
    rows = run.lake.read(f"changes/{TABLE}").to_pylist()
    return sorted(rows, key=lambda row: (row["interval_start"], row["_position"])), _records(folder)


def _records(folder: Path) -> list[Any]:
    with sa.create_engine(f"sqlite:///{folder}/ledger.db").connect() as connection:
        table = sa.Table("freshrank_manifests", sa.MetaData(), autoload_with=connection)
        kept = [column for column in table.c if column.name not in {"seconds", "recorded_at"}]
        return [tuple(row) for row in connection.execute(sa.select(*kept).order_by(table.c.id))]


def test_each_change_is_in_one_partition_and_counted(tmp_path: Path) -> None:
    source = living_source()
    done = [extract(run_of(tmp_path, week), TABLE, source) for week in WEEKS]
    rows, _ = outcome(tmp_path)
    assert sorted(row["_position"] for row in rows) == list(range(1, len(source.log) + 1))
    assert sum(each.rows for each in done) == len(source.log)
    assert done[0].as_dict() | {"seconds": 0} == {
        "table": TABLE,
        "start": "2017-01-02T00:00:00+00:00",
        "end": "2017-01-09T00:00:00+00:00",
        "rows": 12,
        "inserts": 8,
        "updates": 4,
        "deletes": 0,
        "steps": ["2017-01-02T00:00:00Z"],
        "seconds": 0,
    }


def test_a_run_of_several_steps_equals_several_runs(tmp_path: Path) -> None:
    whole = Interval(WEEKS[0].start, WEEKS[-1].end)
    extract(run_of(tmp_path / "one", whole), TABLE, living_source())
    for week in WEEKS:
        extract(run_of(tmp_path / "many", week), TABLE, living_source())
    assert outcome(tmp_path / "one") == outcome(tmp_path / "many")


def test_a_rerun_reads_no_source_and_changes_nothing(tmp_path: Path) -> None:
    source = living_source()
    first = extract(run_of(tmp_path, WEEKS[0]), TABLE, source)
    run = run_of(tmp_path, WEEKS[0])
    before, version = outcome(tmp_path), run.lake.version(f"changes/{TABLE}")
    source.reads, source.fault = 0, "the source must not be asked"
    assert extract(run, TABLE, source) == first
    assert source.reads == 0
    assert (outcome(tmp_path), run.lake.version(f"changes/{TABLE}")) == (before, version)


def test_an_interval_without_changes_is_on_record(tmp_path: Path) -> None:
    run = run_of(tmp_path, WEEKS[0])
    assert extract(run, TABLE, ListSource(tiny())).rows == 0
    assert run.lake.read(f"changes/{TABLE}").num_rows == 0
    manifest = run.ledger.manifest("extract", TABLE, WEEKS[0])
    assert manifest is not None
    assert manifest.counts == {"rows": 0, "insert": 0, "update": 0, "delete": 0}


def test_an_interval_left_out_is_taken_by_the_next_and_yields_later(tmp_path: Path) -> None:
    source = living_source()
    for week in (WEEKS[0], WEEKS[2], WEEKS[1], WEEKS[3]):
        extract(run_of(tmp_path, week), TABLE, source)
    rows, _ = outcome(tmp_path)
    assert sorted(row["_position"] for row in rows) == list(range(1, len(source.log) + 1))
    left_out = run_of(tmp_path, WEEKS[1]).ledger.manifest("extract", TABLE, WEEKS[1])
    assert left_out is not None
    assert left_out.counts["rows"] == 0
    assert left_out.details == {"taken_by": WEEKS[2].key}


def test_late_changes_are_counted(tmp_path: Path) -> None:
    run = run_of(tmp_path, WEEKS[0])
    extract(run, TABLE, living_source())
    manifest = run.ledger.manifest("extract", TABLE, WEEKS[0])
    assert manifest is not None
    assert manifest.details["late"] == 1


def test_a_partition_that_is_gone_is_restored_exactly(tmp_path: Path) -> None:
    source = living_source()
    for week in WEEKS[:2]:
        extract(run_of(tmp_path, week), TABLE, source)
    before = outcome(tmp_path)
    run = run_of(tmp_path, WEEKS[0])
    empty = run.lake.read(f"changes/{TABLE}", []).drop_columns(["interval_start"])
    run.lake.replace(f"changes/{TABLE}", WEEKS[0], empty)
    _write_later_change(source)
    extract(run, TABLE, source)
    assert outcome(tmp_path) == before


def test_a_damaged_file_is_restored(tmp_path: Path) -> None:
    source = living_source()
    extract(run_of(tmp_path, WEEKS[0]), TABLE, source)
    before = outcome(tmp_path)
    next((tmp_path / "lake").rglob("*.parquet")).write_bytes(b"broken")
    extract(run_of(tmp_path, WEEKS[0]), TABLE, source)
    assert outcome(tmp_path) == before


def test_a_partition_that_the_source_no_longer_gives_is_an_error(tmp_path: Path) -> None:
    source = living_source()
    extract(run_of(tmp_path, WEEKS[0]), TABLE, source)
    next((tmp_path / "lake").rglob("*.parquet")).unlink()
    del source.log[2]
    with pytest.raises(CorruptPartition, match=r"changes/articles.*2017-01-02.*backup"):
        extract(run_of(tmp_path, WEEKS[0]), TABLE, source)


def test_a_partition_with_other_rows_is_an_error(tmp_path: Path) -> None:
    source = living_source()
    run = run_of(tmp_path, WEEKS[0])
    extract(run, TABLE, source)
    rows = run.lake.read(f"changes/{TABLE}").drop_columns(["interval_start"])
    run.lake.replace(f"changes/{TABLE}", WEEKS[0], rows.slice(3))
    with pytest.raises(CorruptPartition, match="holds 9 rows, its manifest says 12"):
        extract(run, TABLE, source)


class Cut(Exception):
    """What a source raises when its connection breaks."""


class BreakingSource(ListSource):
    """A source whose connection breaks after the first batch."""

    @contextmanager
    def changes(self, *arguments: Any) -> Iterator[ChangeBatch]:
        def batches(whole: ChangeBatch) -> Iterator[pa.RecordBatch]:
            yield next(whole.batches)
            raise Cut

        with super().changes(*arguments) as taken:
            yield replace(taken, batches=batches(taken))


def test_a_source_that_fails_midway_leaves_no_trace(tmp_path: Path) -> None:
    broken = BreakingSource(tiny())
    broken.log, broken.committed = living_source().log, living_source().committed
    with pytest.raises(Cut):
        extract(run_of(tmp_path / "broken", WEEKS[0]), TABLE, broken)
    assert outcome(tmp_path / "broken") == ([], [])
    for folder in ("broken", "clean"):
        extract(run_of(tmp_path / folder, WEEKS[0]), TABLE, living_source())
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "clean")


def test_a_table_that_is_not_declared_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"'prices' is not declared.*articles"):
        extract(run_of(tmp_path, WEEKS[0]), "prices", ListSource(tiny()))


def test_a_faulty_capture_stops_the_extraction(tmp_path: Path) -> None:
    source = living_source()
    source.fault = "capture failed"
    with pytest.raises(CaptureMissing, match="capture failed"):
        extract(run_of(tmp_path, WEEKS[0]), TABLE, source)
    assert _records(tmp_path) == []


PLACES = ("before the rows", "among the rows", "after the rows", "after the manifest")
KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.extract.stage import extract
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import Ledger
from tests.extract import test_stage

place, folder = sys.argv[1], Path(sys.argv[2])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
replace, record, lock = Lake.replace, Ledger.record, Ledger.lock

def dying(batches):
    yield next(batches)
    die()

def dying_replace(self, table, interval, rows):
    if place == "before the rows":
        die()
    if place == "among the rows":
        import pyarrow as pa
        rows = pa.RecordBatchReader.from_batches(rows.schema, dying(iter(rows)))
    stored = replace(self, table, interval, rows)
    if place == "after the rows":
        die()
    return stored

def dying_record(self, manifest, connection=None):
    record(self, manifest, connection)
    if place == "after the manifest":
        die()

source = test_stage.living_source()
extract(test_stage.run_of(folder, test_stage.WEEKS[0]), test_stage.TABLE, source)
Lake.replace, Ledger.record = dying_replace, dying_record
extract(test_stage.run_of(folder, test_stage.WEEKS[1]), test_stage.TABLE, source)
"""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rerun", [1, 2], ids=["rerun", "the next interval first"])
def test_a_kill_leaves_what_one_clean_run_leaves(tmp_path: Path, place: str, rerun: int) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, place, str(tmp_path / "killed")],
        cwd=PROJECT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -9, killed.stderr
    source, order = living_source(), WEEKS[rerun : rerun + 1] + WEEKS[1:]
    for week in order:
        extract(run_of(tmp_path / "killed", week), TABLE, source)
    clean = living_source()
    for week in [WEEKS[0], *order]:
        extract(run_of(tmp_path / "clean", week), TABLE, clean)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "clean")


def _write_later_change(source: ListSource) -> None:
    late = source.begin("2017-01-03")
    late.insert(TABLE, _article("later still", "fresh"))
    late.commit()
