"""Letting go of captured changes: the log stays small, and nothing still to come is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.corner.modes import GOODS, MODES, SALES, CaptureMode
from benchmarks.corner.shop import Corner, Fold, opened, same
from benchmarks.corner.writers import Busy
from pipelines import extract
from pipelines.extract.modes import mode
from pipelines.extract.source import Position
from pipelines.extract.trigger.numbered.sql import LogNames
from pipelines.extract.trigger.postgres.sql import Capture
from pipelines.shared.columns import POSITION
from pipelines.shared.errors import CaptureMissing, SourceMovedOn
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation
from tests.contracts.taken import folded, news, take


@pytest.fixture(
    params=[
        pytest.param(mode, id=str(mode), marks=[pytest.mark.services] if mode.server else [])
        for mode in MODES
        if mode.capture == "trigger"
    ]
)
def corner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Corner]:
    mode: CaptureMode = request.param
    server = request.getfixturevalue(mode.server) if mode.server else None
    with opened(mode, server, tmp_path) as made:
        yield made


def names(corner: Corner) -> Any:
    """Capture's names for the goods."""
    kind = Capture if corner.mode.server == "postgres" else LogNames
    return kind(corner.shop, GOODS)


def log(corner: Corner) -> list[tuple[Any, ...]]:
    """Operation and row of every change that is kept."""
    with corner.engine.connect() as connection:
        op, order = ("op", "seq") if corner.mode.server == "postgres" else ("_op", POSITION)
        query = f"SELECT {op}, sku FROM {names(corner).changes} ORDER BY {order}"
        return [tuple(row) for row in connection.execute(sa.text(query))]


def pruned(corner: Corner, **positions: Position) -> dict[str, int]:
    prune = mode(corner.url, corner.shop).prune
    assert prune is not None
    return prune(corner.url, corner.shop, positions)


def test_the_last_change_of_each_row_stays(corner: Corner) -> None:
    corner.add("kept", "changed", "gone")
    with corner.transaction() as connection:
        corner.put(connection, "changed", stock=2)
        corner.erase(connection, "gone")
    taken, position = take(corner)
    assert taken.num_rows == 5
    assert pruned(corner, goods=position) == {GOODS: 3}
    assert log(corner) == [("insert", "kept"), ("update", "changed")]
    assert pruned(corner, goods=position) == {GOODS: 0}


def test_what_was_not_taken_stays(corner: Corner) -> None:
    """Also where a later change of the same row was taken, or a transaction is in flight."""
    corner.add("a", "b")
    overtaken = log(corner)
    _, position = take(corner)
    with corner.transaction() as slow:
        corner.put(slow, "slow")
        if corner.mode.parallel:
            corner.add("quick")
        _, position = take(corner, None, position)
        if corner.mode.parallel:
            pruned(corner, goods=position)
        corner.put(slow, "slow", stock=2)
    with corner.transaction() as connection:
        corner.put(connection, "a", stock=3)
        corner.erase(connection, "b")
    before = log(corner)
    expected, _ = take(corner, None, position)
    assert pruned(corner, goods=position) == {GOODS: 2}
    assert log(corner) == [each for each in before if each not in overtaken]
    same(take(corner, None, position)[0], expected)


def test_later_intervals_can_be_extracted_again(corner: Corner) -> None:
    corner.add("a")
    _, first = take(corner)
    with corner.transaction() as connection:
        corner.put(connection, "a", stock=1)
    end = corner.cut()
    second, upto = take(corner, end, first)
    with corner.transaction() as connection:
        corner.put(connection, "a", stock=2)
    assert pruned(corner, goods=first) == {GOODS: 1}
    same(take(corner, end, first, upto)[0], second)


def test_capture_that_was_off_catches_up_after_it(corner: Corner) -> None:
    corner.add("a", "b", "c", stock=1)
    with corner.transaction() as connection:
        corner.put(connection, "a", stock=2)
        corner.erase(connection, "b")
    first, position = take(corner)
    pruned(corner, goods=position)
    own = names(corner).trigger("delete")
    beside = f" ON {GOODS}" if corner.mode.server == "postgres" else ""
    corner.write(sa.text(f"DROP TRIGGER {own}{beside}"))
    with pytest.raises(CaptureMissing, match=r"goods.*capture install"):
        pruned(corner, goods=position)
    with corner.transaction() as connection:
        corner.erase(connection, "c")
    assert extract.install(corner.url, corner.shop) == [GOODS]
    missed, _ = take(corner, None, position)
    assert news(missed) == [("delete", "c")]
    same(folded(corner, [first, missed]), corner.present())


def test_pruning_beside_busy_writers_loses_nothing(corner: Corner) -> None:
    corner.add(*(f"hot {n}" for n in range(3)), stock=0)
    folds = {table: Fold(corner, table) for table in (GOODS, SALES)}
    positions: dict[str, Any] = dict.fromkeys(folds)
    deleted = 0
    with Busy(corner) as busy:
        for _ in range(5):
            busy.work_on(15)
            end = corner.cut()
            for table, fold in folds.items():
                changes, positions[table] = take(corner, end, positions[table], table=table)
                fold.add(changes)
            deleted += sum(pruned(corner, **positions).values())
    for table, fold in folds.items():
        fold.add(take(corner, None, positions[table], table=table)[0])
        same(fold.state(), corner.present(table))
    assert deleted > 50


def test_an_interval_that_was_pruned_is_not_extracted_again(corner: Corner) -> None:
    """Those before the given end are refused, those after it can be extracted again."""
    begin = corner.cut(whole=True) - timedelta(days=1)
    intervals = []
    for number in range(3):
        with corner.transaction() as connection:
            corner.put(connection, "grows", stock=number)
        intervals.append(Interval(begin, begin := corner.cut(whole=True)))
        for table in (GOODS, SALES):
            extract.run(corner.run(intervals[-1]), table)
    run = corner.run(intervals[-1])
    installation = Installation(run.settings, corner.shop)
    assert extract.prune(installation, intervals[0].end - timedelta(days=1)) == {}
    assert extract.prune(installation, intervals[1].end) == {GOODS: 2, SALES: 0}
    assert extract.reextract(run, GOODS).rows == 1
    with pytest.raises(SourceMovedOn, match=r"cannot be extracted again.*not touched"):
        extract.reextract(corner.run(intervals[0]), GOODS)
