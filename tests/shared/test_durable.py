"""What a manifest says is there is on the disk before the manifest is recorded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import features
from pipelines.shared.ledger import Ledger
from pipelines.shared.run import Installation
from tests.features.small_logs import Grocery
from tests.maintain.stocked import WEEKS, empty, stock


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[list[str]]]:
    """Watches a lake: of each manifest, the files that lay unsynced when it was recorded."""

    def watch(root: Path) -> list[list[str]]:
        synced: set[tuple[str, float]] = set()
        found: list[list[str]] = []
        sync, record = os.fsync, Ledger.record

        def fsync(handle: int) -> None:
            path = Path(f"/proc/self/fd/{handle}").readlink()
            synced.add((str(path), path.stat().st_mtime))
            sync(handle)

        def recorded(ledger: Ledger, *args: Any) -> None:
            files = [path for path in root.rglob("*") if path.suffix in (".parquet", ".json")]
            paths = [*files, *{path.parent for path in files}]
            found.append(
                [str(each) for each in paths if (str(each), each.stat().st_mtime) not in synced]
            )
            record(ledger, *args)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Ledger, "record", recorded)
        return found

    return watch


def test_rows_are_on_the_disk_before_their_manifest(
    tmp_path: Path, unsynced: Callable[[Path], list[list[str]]]
) -> None:
    installation: Installation = empty(tmp_path)
    found = unsynced(installation.lake.local_root)
    stock(installation, WEEKS[:2])
    assert found == [[]] * 4


@pytest.mark.slow
def test_state_and_groups_are_on_the_disk_before_their_manifest(
    tmp_path: Path, unsynced: Callable[[Path], list[list[str]]]
) -> None:
    shop = Grocery(tmp_path)
    shop.line(1, 100, 1, 1)
    run = shop.shelf.run(0)
    found = unsynced(run.lake.local_root)
    shop.validate(0)
    features.run(run)
    assert found[-1] == []
