"""A copy of the lake is a whole lake at every moment, and damage is mended from it exactly."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path

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

    def list_then_write(files: pafs.FileSystem, root: str) -> set[str]:
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
    with pytest.raises(CorruptPartition, match=r"is at version none, its backup .* at 4"):
        maintain.back_up(kept)
    assert contents(the_copy(kept)) == held
