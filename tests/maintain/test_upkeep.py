"""Merging files and letting old partitions go changes nothing that anybody still reads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from pipelines import extract as extraction
from pipelines import maintain, validate
from pipelines.extract.stage import extract
from pipelines.inspect.history import rows_at
from pipelines.shared.columns import EXPIRED
from pipelines.shared.errors import DeclarationError, Expired
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import Lake, in_source_order
from pipelines.shared.run import Installation
from tests.maintain.stocked import TABLE, WEEKS, copied, empty, living_source

CHANGES, VALID, QUARANTINE = (f"{part}/{TABLE}" for part in ("changes", "valid", "quarantine"))
LATER = Interval.of("2017-01-30", "2017-02-06")


def shatter(installation: Installation, table: str, week: Interval) -> None:
    """Store a partition as one file a row, the last row first."""
    rows = installation.lake.read(table, [week])
    installation.lake.remove(table, [week.key])
    for place in reversed(range(rows.num_rows)):
        write_deltalake(installation.lake.uri(table), rows.slice(place, 1), mode="append")


def files(installation: Installation, table: str) -> int:
    return len(DeltaTable(installation.lake.uri(table)).file_uris())


def contents(installation: Installation) -> dict[str, str]:
    """What every table of the lake holds, by partition."""
    return {
        f"{table} {key}": content_hash(in_source_order(installation.lake.read(table, [key])))
        for table in (CHANGES, VALID, QUARANTINE)
        for key in installation.lake.intervals(table)
    }


def test_compaction_changes_files_and_nothing_else(stocked: Installation) -> None:
    before, held = maintain.verify(stocked), contents(stocked)
    for table in (CHANGES, VALID):
        for week in WEEKS[:2]:
            shatter(stocked, table, week)
    model = stocked.lake.local_root / "models" / "v1.txt"
    model.parent.mkdir()
    model.write_text("tree", encoding="utf-8")
    assert (maintain.verify(stocked), contents(stocked)) == (before, held)
    assert files(stocked, CHANGES) > len(WEEKS)
    kept = maintain.run(stocked)
    assert kept.compacted == 4
    assert kept.merged == 2 * (13 + 14) - 1, "one row of the first week is in quarantine"
    assert (maintain.verify(stocked), contents(stocked)) == (before, held)
    assert (files(stocked, CHANGES), files(stocked, VALID)) == (len(WEEKS), len(WEEKS))
    assert model.read_text(encoding="utf-8") == "tree"
    again = maintain.run(stocked)
    assert (again.compacted, again.merged, again.vacuumed) == (0, 0, 0)


def test_vacuum_leaves_what_the_tables_need(stocked: Installation) -> None:
    before, held = maintain.verify(stocked), contents(stocked)
    shatter(stocked, CHANGES, WEEKS[0])
    maintain.run(stocked)
    folder = Path(stocked.lake.uri(CHANGES))
    orphan = (
        folder / f"interval_start={WEEKS[0].key.replace(':', '%3A')}" / "part-of-the-killed.parquet"
    )
    orphan.write_bytes(b"half")
    assert stocked.lake.vacuum(CHANGES) == 0, "younger than a week: somebody may be reading"
    assert stocked.lake.vacuum(CHANGES, timedelta(0)) == 1 + 13 + 1
    assert not orphan.exists()
    assert len(list(folder.glob("interval_start=*/*.parquet"))) == len(WEEKS)
    assert (maintain.verify(stocked), contents(stocked)) == (before, held)


def test_what_the_retention_lets_go_is_no_damage(original: Installation, tmp_path: Path) -> None:
    # The newest interval ends on the 30th; 14 days before is the end of the second week.
    retention = "\nretention: {changes_days: 14, quarantine_days: 7, docs_days: 20}\n"
    stocked = copied(original, tmp_path, retention)
    held = contents(stocked)
    kept = maintain.run(stocked)
    assert set(kept.expired) == {
        f"{CHANGES} {WEEKS[0].key}",
        f"{CHANGES} {WEEKS[1].key}",
        f"{QUARANTINE} {WEEKS[0].key}",
        f"validation/{TABLE}/{WEEKS[0].key}.html",
    }
    left = contents(stocked)
    assert left == {name: value for name, value in held.items() if name in left}
    assert {name for name in held if name not in left} == {
        name for name in kept.expired if not name.startswith("validation")
    }
    report = maintain.verify(stocked)
    assert report.faults == ()
    assert report.expired == 2 + 3
    assert maintain.run(stocked).expired == ()


def test_a_rerun_of_what_has_gone_says_so(original: Installation, tmp_path: Path) -> None:
    stocked = copied(original, tmp_path, "\nretention: {changes_days: 14}\n")
    maintain.run(stocked)
    source = living_source()
    source.fault = "the source must not be asked"
    with pytest.raises(Expired, match=r"retention\.changes_days.*begin with a later interval"):
        extract(stocked.run(WEEKS[0]), TABLE, source)
    with pytest.raises(Expired, match=r"2017-01-09.*retention\.changes_days"):
        validate.run(stocked.run(WEEKS[1]), TABLE)
    refused = pytest.raises(Expired, match=r"up to 2017-01-16T00:00:00Z.*backup")
    with refused, rows_at(stocked, TABLE, WEEKS[2].end):
        pass
    assert extract(stocked.run(WEEKS[2]), TABLE, source).rows == 14
    assert validate.run(stocked.run(WEEKS[2]), TABLE).valid == 14


def test_extraction_goes_on_after_the_retention(original: Installation, tmp_path: Path) -> None:
    stocked = copied(original, tmp_path, "\nretention: {changes_days: 1}\n")
    assert len(maintain.run(stocked).expired) == len(WEEKS) - 1, "all but the newest"
    source = living_source()
    wrong = source.begin("2017-01-05")
    wrong.insert(TABLE, {"sku": "wrong", "kind": "k", "maker": None, "amount": -1})
    wrong.commit()
    new = source.begin("2017-02-01")
    new.insert(TABLE, {"sku": "new", "kind": "k", "maker": None, "amount": None})
    new.commit()
    assert extract(stocked.run(LATER), TABLE, source).rows == 1
    assert maintain.verify(stocked).faults == ()


def test_changes_that_were_never_validated_stay(original: Installation, tmp_path: Path) -> None:
    stocked = copied(original, tmp_path, "\nretention: {changes_days: 1}\n")
    far = Interval.of("2017-02-06", "2017-02-13")
    for week in (LATER, far):
        extract(stocked.run(week), TABLE, living_source())
    assert not any(LATER.key in line for line in maintain.run(stocked).expired)
    standing = stocked.ledger.manifest("extract", TABLE, LATER)
    assert standing is not None
    assert EXPIRED not in standing.details


def test_the_shops_database_forgets_what_the_retention_says(
    original: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prune(_: Installation, before: datetime) -> dict[str, int]:
        asked.append(before)
        return {TABLE: 3}

    monkeypatch.setattr(extraction, "prune", prune)
    assert maintain.run(copied(original, tmp_path / "kept")).pruned == {}
    stocked = copied(original, tmp_path / "let go", "\nretention: {captured_days: 14}\n")
    assert maintain.run(stocked).pruned == {TABLE: 3}
    assert asked == [WEEKS[1].end]


class Killed(Exception):
    """Stands for a kill."""


def test_a_kill_before_the_rows_are_gone_is_finished_by_the_next_round(
    original: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked = copied(original, tmp_path, "\nretention: {changes_days: 14}\n")

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "remove", die)
        with pytest.raises(Killed):
            maintain.run(stocked)
    assert maintain.verify(stocked).faults == ()
    assert len(maintain.run(stocked).expired) == 2
    assert maintain.verify(stocked).faults == ()


@pytest.mark.parametrize("kept", ["state", "valid", "groups"])
def test_what_the_next_runs_need_never_expires(tmp_path: Path, kept: str) -> None:
    with pytest.raises(DeclarationError, match=rf"retention: {kept}_days.*never expires.*changes_"):
        empty(tmp_path, f"\nretention: {{{kept}_days: 30}}\n")


def test_a_retention_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"retention\.changes_days.*greater than or equal"):
        empty(tmp_path, "\nretention: {changes_days: 0}\n")


def test_writers_and_compaction_do_not_lose_to_each_other(stocked: Installation) -> None:
    """A table written without a lock, as features writes its own, while its files are merged."""
    lake, rows, name = stocked.lake, pa.table({"a": list(range(1000))}), "groups/search"
    scrap = pa.table({"a": [1], "interval_start": [WEEKS[0].key]})

    def write() -> int:
        for number in range(12):
            for _ in range(3):
                with suppress(CommitFailedError):  # The test's own append, not Freshrank's.
                    write_deltalake(lake.uri(name), scrap, mode="append")
            for week in WEEKS[:2]:
                lake.replace(name, week, rows.slice(number))
        return number

    lake.replace(name, WEEKS[0], rows)
    merged = 0
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            merged += lake.compact(name, WEEKS[0].key)
    assert writing.result() == 11
    assert merged > 0
    for week in WEEKS[:2]:
        assert lake.read(name, [week], ["a"]).sort_by("a") == rows.slice(11)
