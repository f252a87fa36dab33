"""A copy of the lake is a whole lake at every moment, and damage is mended from it exactly."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from pipelines import maintain
from pipelines.maintain import backup
from pipelines.shared.errors import CorruptPartition
from pipelines.shared.run import Installation
from tests.maintain.stocked import TABLE, WEEKS
from tests.maintain.test_upkeep import contents
from tests.maintain.test_verify import files, partition

CHANGES = f"changes/{TABLE}"


@pytest.fixture
def kept(stocked: Installation, tmp_path: Path) -> Installation:
    """The stocked installation with a place for its copy."""
    settings = stocked.settings.model_copy(update={"backup": str(tmp_path / "backup")})
    return replace(stocked, settings=settings)


def the_copy(installation: Installation) -> Installation:
    """The same installation with its lake where the copy is."""
    backup = installation.settings.model_copy(update={"lake": installation.settings.backup})
    return replace(installation, settings=backup)


def test_the_copy_is_the_lake_and_a_rerun_copies_nothing(kept: Installation) -> None:
    held = contents(kept)
    assert maintain.back_up(kept) > len(WEEKS)
    assert contents(the_copy(kept)) == held
    assert maintain.verify(the_copy(kept)).faults == ()
    assert maintain.back_up(kept) == 0
    kept.lake.replace(CHANGES, WEEKS[0], partition(kept, CHANGES, WEEKS[0]))
    assert maintain.back_up(kept) == 2, "one data file and one entry of the log"


def test_a_checkpoint_written_after_the_listing_waits_for_the_next_copy(
    kept: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = partition(kept, CHANGES, WEEKS[0])
    listed, calls = backup._files, count()

    def list_then_write(files: pafs.FileSystem, root: str) -> Any:
        names = listed(files, root)
        if next(calls) == 0:
            for _ in range(12):
                kept.lake.replace(CHANGES, WEEKS[0], rows)
        return names

    pointer = f"{CHANGES}/_delta_log/_last_checkpoint"
    for _ in range(12):
        kept.lake.replace(CHANGES, WEEKS[0], rows)
    maintain.back_up(kept)
    before = (the_copy(kept).lake.local_root / pointer).read_text()
    monkeypatch.setattr(backup, "_files", list_then_write)
    maintain.back_up(kept)
    assert (kept.lake.local_root / pointer).read_text() != before
    assert (the_copy(kept).lake.local_root / pointer).read_text() == before
    monkeypatch.undo()
    assert maintain.back_up(kept) > 12
    assert the_copy(kept).lake.version(CHANGES) == kept.lake.version(CHANGES)
    assert maintain.back_up(kept) == 0
    assert contents(the_copy(kept)) == contents(kept)


def log_of(installation: Installation) -> dict[str, bytes]:
    """The entries of the changes' log."""
    folder = installation.lake.local_root / CHANGES / "_delta_log"
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def test_what_the_copy_no_longer_needs_goes_without_a_commit_of_its_own(
    kept: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lake's next commits are copied, and what is restored is the lake at every interval."""
    rows = partition(kept, CHANGES, WEEKS[0])
    maintain.back_up(kept)
    kept.lake.replace(CHANGES, WEEKS[0], rows)
    monkeypatch.setattr(backup, "KEEP", timedelta(0))
    replaced = len(files(the_copy(kept), CHANGES, WEEKS[0]))
    maintain.back_up(kept)
    assert len(files(the_copy(kept), CHANGES, WEEKS[0])) == replaced, "the older file is gone"
    for week in (WEEKS[2], WEEKS[0], WEEKS[3]):
        kept.lake.replace(CHANGES, week, partition(kept, CHANGES, week).slice(1))
        assert maintain.back_up(kept) == 2
        assert log_of(the_copy(kept)) == log_of(kept)
        assert contents(the_copy(kept)) == contents(kept)


def test_vacuums_that_were_committed_into_the_copy_give_way_to_the_lakes_commits(
    kept: Installation,
) -> None:
    rows = partition(kept, CHANGES, WEEKS[0])
    kept.lake.replace(CHANGES, WEEKS[0], rows)
    maintain.back_up(kept)
    known = len(log_of(kept))
    assert the_copy(kept).lake.vacuum(CHANGES, timedelta(0)) == 1
    assert len(log_of(the_copy(kept))) == known + 2
    assert maintain.back_up(kept) == 1, "the file that the vacuum deleted before its time"
    assert log_of(the_copy(kept)) == log_of(kept)
    the_copy(kept).lake.vacuum(CHANGES, timedelta(0))
    shutil.rmtree(the_copy(kept).lake.local_root / CHANGES / "_delta_log")
    maintain.back_up(kept)
    kept.lake.replace(CHANGES, WEEKS[0], rows)
    maintain.back_up(kept)
    the_copy(kept).lake.vacuum(CHANGES, timedelta(0))
    for week in WEEKS[:3]:
        kept.lake.replace(CHANGES, week, partition(kept, CHANGES, week).slice(1))
    maintain.back_up(kept)
    assert log_of(the_copy(kept)) == log_of(kept)
    assert contents(the_copy(kept)) == contents(kept)


def test_a_log_with_another_history_is_not_copied_over(kept: Installation) -> None:
    maintain.back_up(kept)
    week, rows = WEEKS[0], partition(kept, CHANGES, WEEKS[0])
    the_copy(kept).lake.replace(CHANGES, week, rows.slice(1))
    kept.lake.replace(CHANGES, week, rows)
    before = log_of(the_copy(kept))
    with pytest.raises(CorruptPartition, match="its log differs from its backup's"):
        maintain.back_up(kept)
    assert log_of(the_copy(kept)) == before


def test_a_damaged_entry_of_the_copy_is_named(kept: Installation) -> None:
    maintain.back_up(kept)
    log = the_copy(kept).lake.local_root / CHANGES / "_delta_log"
    max(log.glob("*.json")).write_bytes(b'{"commitInfo": {')
    with pytest.raises(CorruptPartition, match="its log differs from its backup's"):
        maintain.back_up(kept)


def test_a_file_beside_the_tables_that_was_written_again_is_copied_again(
    kept: Installation,
) -> None:
    page = kept.lake.local_root / "validation" / TABLE / "page.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("one")
    model = kept.lake.local_root / "models" / "first.txt"
    model.parent.mkdir()
    model.write_text("trained")
    maintain.back_up(kept)
    for path, text in ((page, "two"), (model, "damage")):
        path.write_text(text)
        os.utime(path, (time.time() + 60,) * 2)
    assert maintain.back_up(kept) == 1
    copied = the_copy(kept).lake.local_root
    assert (copied / page.relative_to(kept.lake.local_root)).read_text() == "two"
    assert (copied / model.relative_to(kept.lake.local_root)).read_text() == "trained"
    data = files(kept, CHANGES, WEEKS[0])[0]
    good = (the_copy(kept).lake.local_root / data.relative_to(kept.lake.local_root)).read_bytes()
    data.write_bytes(b"damage")
    maintain.back_up(kept)
    copied = the_copy(kept).lake.local_root / data.relative_to(kept.lake.local_root)
    assert copied.read_bytes() == good


def test_without_a_place_nothing_is_copied(stocked: Installation) -> None:
    assert maintain.back_up(stocked) == 0


def test_lost_changes_are_brought_back_without_the_source(kept: Installation) -> None:
    before, held = maintain.verify(kept), contents(kept)
    maintain.back_up(kept)
    files(kept, CHANGES, WEEKS[1])[0].unlink()
    with pytest.raises(CorruptPartition):
        contents(kept)
    lines = maintain.repair(kept, maintain.verify(kept).faults)
    assert lines == [f"extract {TABLE} {WEEKS[1]}: restored from the backup"]
    assert (maintain.verify(kept), contents(kept)) == (before, held)


def test_a_copy_with_other_rows_is_not_restored(kept: Installation) -> None:
    maintain.back_up(kept)
    manifest = kept.ledger.manifest("extract", TABLE, WEEKS[1])
    assert manifest is not None
    copy = the_copy(kept)
    copy.lake.replace(CHANGES, WEEKS[1], partition(copy, CHANGES, WEEKS[1]).slice(1))
    assert not backup.restore(kept, manifest)
    shutil.rmtree(str(kept.settings.backup))
    assert not backup.restore(kept, manifest)


def test_a_copy_that_was_cut_off_is_whole_and_is_finished_by_the_next(
    kept: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, whole = contents(kept), backup._copy
    total = 0
    for allowed in range(0, 40, 3):
        left = allowed

        def cut_off(source: pafs.FileSystem, path: str, target: pafs.FileSystem, to: str) -> None:
            nonlocal left
            if left == 0:
                target.create_dir(to.rpartition("/")[0], recursive=True)
                with target.open_output_stream(f"{to}.part") as half:
                    half.write(b"half")
                raise KeyboardInterrupt
            left -= 1
            whole(source, path, target, to)

        monkeypatch.setattr(backup, "_copy", cut_off)
        try:
            maintain.back_up(kept)
        except KeyboardInterrupt:
            total += 1
        copied = contents(the_copy(kept)) if the_copy(kept).lake.exists(CHANGES) else {}
        assert copied.items() <= held.items()
    assert total > 1
    monkeypatch.undo()
    maintain.back_up(kept)
    assert contents(the_copy(kept)) == held


def test_a_lake_older_than_its_copy_is_not_copied(kept: Installation) -> None:
    maintain.back_up(kept)
    held = contents(the_copy(kept))
    shutil.rmtree(kept.lake.uri(CHANGES))
    with pytest.raises(CorruptPartition, match="its log differs from its backup's"):
        maintain.back_up(kept)
    assert contents(the_copy(kept)) == held


def test_a_purged_copy_has_what_the_lake_has_and_what_the_lake_lost(kept: Installation) -> None:
    maintain.back_up(kept)
    week, page = WEEKS[0], kept.lake.local_root / "validation" / "page.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("page")
    kept.lake.replace(CHANGES, week, partition(kept, CHANGES, week).slice(1))
    kept.lake.keep_only_present(CHANGES)
    maintain.back_up(kept)
    held = contents(kept)
    lost = files(kept, CHANGES, WEEKS[1])[0]
    lost.unlink()
    page.unlink()
    half = the_copy(kept).lake.local_root / CHANGES / "interval_start=x" / "half.parquet.part"
    half.parent.mkdir()
    half.write_text("half")
    assert backup.purge(kept, [CHANGES, "validation", "missing"]) > 1
    assert log_of(the_copy(kept)) == log_of(kept)
    assert contents(the_copy(kept)) == held, "the only good copy of a lost file stays"
    copied = list((the_copy(kept).lake.local_root / CHANGES).rglob("*.parquet*"))
    assert len([path for path in copied if "_delta_log" not in str(path)]) == len(WEEKS)
    assert not (the_copy(kept).lake.local_root / "validation" / "page.html").exists()
    kept.lake.replace(CHANGES, WEEKS[1], partition(the_copy(kept), CHANGES, WEEKS[1]))
    maintain.back_up(kept)
    assert contents(the_copy(kept)) == contents(kept)
