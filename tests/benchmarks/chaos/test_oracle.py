"""The oracle of the chaos sees what is lost, doubled, changed and left; schedules repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from benchmarks.chaos import oracle, schedule
from benchmarks.chaos.history import COLUMNS, HOSTILITIES, Change, Week, history
from benchmarks.chaos.shop import Home, interval_of
from benchmarks.chaos.steps import Strike


def kept(home: Home, room: str, week: Week, changes: list[Change]) -> None:
    """Write changes into a room of the lake, as any product might."""
    for table, names in COLUMNS.items():
        rows = [each for each in changes if each.table == table]
        if rows:
            columns = zip(*(each.row for each in rows), strict=True)
            data: dict[str, Any] = {
                name: pa.array(values, _type(name))
                for name, values in zip(names, columns, strict=True)
                if name != "email"
            }
            data["_op"] = [each.op for each in rows]
            data["_position"] = range(len(rows))
            data["interval_start"] = [interval_of(week).key] * len(rows)
            place = str(home.lake / room / table)
            write_deltalake(place, pa.table(data), partition_by=["interval_start"], mode="append")


def _type(name: str) -> pa.DataType:
    return {"price": pa.float64(), "weight": pa.float64(), "pieces": pa.int32()}.get(
        name, pa.string()
    )


@pytest.fixture
def lived(tmp_path: Path) -> tuple[Home, Week]:
    """A shop after its first week, and nothing in its lake."""
    home, week = Home(tmp_path / "home"), history(3, 4, 5)[0]
    home.found()
    for transaction in week.transactions:
        home.commit(transaction)
    return home, week


def _judged(home: Home, week: Week) -> tuple[int, int, list[str]]:
    return oracle._against_history(home, [week])


def test_what_was_committed_is_what_is_wanted(lived: tuple[Home, Week]) -> None:
    home, week = lived
    changes = list(week.changes)
    kept(home, "changes", week, changes)
    kept(home, "valid", week, [each for each in changes if each.sound])
    kept(home, "quarantine", week, [each for each in changes if not each.sound])
    assert _judged(home, week) == (0, 0, [])


def test_rows_that_are_lost_or_doubled_are_counted(lived: tuple[Home, Week]) -> None:
    home, week = lived
    changes = list(week.changes)
    kept(home, "changes", week, changes[1:])
    kept(home, "valid", week, [each for each in [*changes, *changes[-2:]] if each.sound])
    kept(home, "quarantine", week, [each for each in changes if not each.sound])
    lost, doubled, wrong = _judged(home, week)
    assert (lost, doubled) == (1, 2)
    assert any("customers folded lacks" in line for line in wrong)


def test_an_unsound_row_among_the_valid_is_seen(lived: tuple[Home, Week]) -> None:
    home, week = lived
    changes = list(week.changes)
    kept(home, "changes", week, changes)
    kept(home, "valid", week, changes)
    lost, doubled, wrong = _judged(home, week)
    assert (lost, doubled) == (0, 0)
    assert [line.split(":")[0] for line in wrong] == ["quarantine of order_lines 2021-03-01T00"]


def test_a_value_of_the_source_that_changed_unseen_is_seen(lived: tuple[Home, Week]) -> None:
    home, week = lived
    changes = list(week.changes)
    kept(home, "changes", week, changes)
    kept(home, "valid", week, [each for each in changes if each.sound])
    kept(home, "quarantine", week, [each for each in changes if not each.sound])
    home.commit(type(week.transactions[0])(week.start, (
        Change("products", "update", ("sku/1", "lamp", "Another", 1.0, 1.0)),
    )))  # fmt: skip
    assert {line.split(" has")[0].split(" lacks")[0] for line in _judged(home, week)[2]} == {
        "products itself"
    }


def test_differences_say_where() -> None:
    one = {"lake": {"a": [1, "x"]}, "decisions": {}}
    other = {"lake": {"a": [1, "x"], "b": [2, "y"]}, "decisions": {}}
    assert oracle.differences(one, one) == []
    assert oracle.differences(one, other) == ["/lake/b: None instead of [2, 'y']"]


def test_a_seed_draws_the_same_history_and_schedule() -> None:
    assert history(7, 6, 10) == history(7, 6, 10) != history(8, 6, 10)
    hostile = {kind for week in history(7, 6, 10) for kind in week.hostile}
    assert hostile == set(HOSTILITIES)
    traces = [("turn take", "write changes/products", "mlflow create_run", "decide")] * 4
    drawn = schedule.draw(7, traces, 4)
    assert drawn == schedule.draw(7, traces, 4) != schedule.draw(8, traces, 4)
    strikes = [each for week in drawn for each in week if isinstance(each, Strike)]
    assert len({(each.step, each.effect) for each in strikes}) == len(strikes) > 0
