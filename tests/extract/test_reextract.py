"""Reading an interval from its source once more: the same changes, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import extract as stage
from pipelines.extract.stage import extract
from pipelines.maintain import verify
from pipelines.shared.errors import CaptureMissing, NotExtracted, SourceMovedOn
from pipelines.shared.lake import Lake
from pipelines.shared.run import Installation
from tests.extract.drifting import MODES, Goods, goods
from tests.extract.list_source import ListSource
from tests.extract.test_stage import TABLE, WEEKS, living_source, outcome, run_of


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch) -> ListSource:
    """A source of four weeks, in the place of the one that the shop declares."""
    source = living_source()
    module = import_module("pipelines.extract.reextract")
    monkeypatch.setattr(module, "open_source", lambda run, table, look: (run, source))
    return source


def extracted(folder: Path, source: ListSource) -> None:
    for week in WEEKS[:3]:
        extract(run_of(folder, week), TABLE, source)


def test_a_rerun_reads_what_is_stored_and_a_reextraction_the_source(
    tmp_path: Path, living: ListSource
) -> None:
    extracted(tmp_path, living)
    before = outcome(tmp_path)
    living.reads = 0
    first = extract(run_of(tmp_path, WEEKS[1]), TABLE, living)
    assert living.reads == 0
    assert stage.reextract(run_of(tmp_path, WEEKS[1]), TABLE) == first
    assert living.reads == 1
    assert outcome(tmp_path) == before


@pytest.mark.parametrize("damage", ["damaged", "gone", "doubled"])
def test_what_is_damaged_is_whole_again(tmp_path: Path, living: ListSource, damage: str) -> None:
    extracted(tmp_path, living)
    before = outcome(tmp_path)
    run = run_of(tmp_path, WEEKS[1])
    if damage == "damaged":
        for file in (tmp_path / "lake").rglob("*2017-01-09*/*.parquet"):
            file.write_bytes(b"broken")
    elif damage == "gone":
        run.lake.remove(f"changes/{TABLE}", [WEEKS[1].key])
    else:
        rows = run.lake.read(f"changes/{TABLE}", [WEEKS[1]]).drop_columns(["interval_start"])
        run.lake.replace(f"changes/{TABLE}", WEEKS[1], pa.concat_tables([rows, rows]))
    stage.reextract(run, TABLE)
    assert outcome(tmp_path) == before


@pytest.mark.parametrize("loss", ["a change less", "another value", "nothing at all"])
def test_a_source_that_moved_on_is_refused_and_nothing_is_touched(
    tmp_path: Path, living: ListSource, loss: str
) -> None:
    extracted(tmp_path, living)
    run = run_of(tmp_path, WEEKS[1])
    before, version = outcome(tmp_path), run.lake.version(f"changes/{TABLE}")
    places = [
        place for place, (_, row) in enumerate(living.log)
        if WEEKS[1].start <= row["_committed_at"] < WEEKS[1].end
    ]  # fmt: skip
    if loss == "a change less":
        del living.log[places[2]]
    elif loss == "another value":
        living.log[places[2]][1]["kind"] = "other"
    else:
        living.log = []
    why = r"changes/articles of \[2017-01-09.*cannot be extracted again.*on record.*not touched"
    with pytest.raises(SourceMovedOn, match=why):
        stage.reextract(run, TABLE)
    assert (outcome(tmp_path), run.lake.version(f"changes/{TABLE}")) == (before, version)


def test_what_the_source_says_about_it_is_passed_on(
    tmp_path: Path, living: ListSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def purged(*_: Any) -> Any:
        raise CaptureMissing("the log was purged")

    extracted(tmp_path, living)
    monkeypatch.setattr(living, "changes", purged)
    with pytest.raises(SourceMovedOn, match=r"the log was purged.*not touched"):
        stage.reextract(run_of(tmp_path, WEEKS[1]), TABLE)


def test_what_is_not_on_record_is_not_extracted_again(tmp_path: Path, living: ListSource) -> None:
    extracted(tmp_path, living)
    with pytest.raises(NotExtracted, match=r"2017-01-23.*without --reextract"):
        stage.reextract(run_of(tmp_path, WEEKS[3]), TABLE)


def test_an_interval_whose_changes_lie_in_a_later_one_stays_empty(
    tmp_path: Path, living: ListSource
) -> None:
    for week in (WEEKS[1], WEEKS[0]):
        extract(run_of(tmp_path, week), TABLE, living)
    before = outcome(tmp_path)
    assert stage.reextract(run_of(tmp_path, WEEKS[0]), TABLE).rows == 0
    assert outcome(tmp_path) == before


class Killed(Exception):
    """What ends a run before its rows are durable."""


def test_stored_rows_stay_until_the_new_ones_are_durable(
    tmp_path: Path, living: ListSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted(tmp_path, living)
    before = outcome(tmp_path)

    def dying(self: Lake, table: str, interval: Any, rows: Any) -> int:
        next(iter(rows))
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "replace", dying)
        with pytest.raises(Killed):
            stage.reextract(run_of(tmp_path, WEEKS[1]), TABLE)
    assert outcome(tmp_path) == before


@pytest.fixture(params=MODES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Goods]:
    """Three rows, one in each of three intervals."""
    with goods(request, tmp_path) as made:
        made.create("name varchar(40), amount integer")
        made.declare({"name": "string"}, ignore=["amount"])
        made.install()
        for number in range(1, 4):
            made.put(number, name=f"no {number}", amount=number)
            made.take()
        yield made


@pytest.mark.services
def test_every_capture_mode_gives_it_again_or_says_why_not(shop: Goods) -> None:
    run, before = shop.run, shop.run.lake.read("changes/goods").sort_by("_position")
    if shop.capture != "wal":
        stage.reextract(run, "goods")
    shop.execute(f"UPDATE {shop.name} SET name = 'other' WHERE id = 3", ())
    if shop.capture in ("wal", "cursor"):
        why = {"wal": "gave up its changes", "cursor": "changes for it now"}[shop.capture]
        with pytest.raises(SourceMovedOn, match=f"{why}.*not touched"):
            stage.reextract(run, "goods")
    else:
        stage.reextract(run, "goods")
    assert run.lake.read("changes/goods").sort_by("_position") == before
    installation = Installation(shop.settings, shop.shop)
    assert verify(installation).faults == ()


@pytest.mark.services
@pytest.mark.parametrize("shop", ["binlog mariadb"], indirect=True)
def test_a_column_declared_since_is_filled_where_the_log_has_it(shop: Goods) -> None:
    shop.declare({"name": "string", "amount": "int32"})
    stage.reextract(shop.run, "goods")
    found = shop.run.lake.read("changes/goods").sort_by("_position")
    assert found["amount"].to_pylist() == [None, None, 3]
    installation = Installation(shop.settings, shop.shop)
    assert verify(installation).faults == ()
