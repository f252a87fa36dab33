"""What every capture mode promises, on real servers and with their own clocks.

Each change once, whole transactions, in order; always compared by content: the changes, folded,
are the source's rows. What a mode does not promise stands in its entry in `capture_modes.MODES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.corner.modes import GOODS, MODES, SALES, CaptureMode
from benchmarks.corner.shop import Corner, Fold, opened, same
from benchmarks.corner.writers import Busy
from pipelines import extract
from pipelines.extract.position import capture_of
from pipelines.extract.source import Position, change_schema
from pipelines.extract.stage import extract as extract_from
from pipelines.shared.columns import COMMITTED_AT, OP, POSITION, TRANSACTION
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from tests.contracts.taken import checked, folded, news, skus, take

SKEW = timedelta(minutes=2)
"""Less than the lag within which a cursor looks back."""
BATCH_BYTES = 20_000_000
"""More than a source may hold of changes at once."""


@pytest.fixture(
    params=[
        pytest.param(mode, id=str(mode), marks=[pytest.mark.services] if mode.server else [])
        for mode in MODES
    ]
)
def corner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Corner]:
    mode: CaptureMode = request.param
    server = request.getfixturevalue(mode.server) if mode.server else None
    with opened(mode, server, tmp_path) as made:
        yield made


def needs(corner: Corner, promise: str) -> None:
    if not getattr(corner.mode, promise):
        pytest.skip(f"{corner.mode} does not promise it: {promise}")


def test_every_change_has_its_operation_time_and_place(corner: Corner) -> None:
    _, start = take(corner)
    begin = corner.cut()
    corner.add("a", "b")
    between = corner.cut()
    with corner.transaction() as connection:
        corner.put(connection, "a", amount=Decimal("2.50"))
        corner.erase(connection, "b")
    end = corner.cut()
    changes, position = take(corner, end, start)
    recorded = Manifest("extract", GOODS, Interval.of("2017-01-02", "2017-01-09"), {}, "", position)
    assert capture_of(recorded) == corner.mode.capture
    assert changes.schema == change_schema(corner.shop.tables[GOODS])
    expected = [("insert", "a"), ("insert", "b"), ("update", "a"), ("delete", "b")]
    assert news(changes) == (expected if corner.mode.versions else [("insert", "a")])
    raised = Decimal("2.50")
    amounts = [None, None, raised, None] if corner.mode.versions else [raised]
    assert changes["amount"].to_pylist() == amounts
    times = changes[COMMITTED_AT].to_pylist()
    assert begin <= times[0]
    assert times[-1] < end
    if corner.mode.versions:
        assert times[0] == times[1] < between <= times[2]
        first, second = changes[TRANSACTION].to_pylist()[1:3]
        assert first != second
    places = changes[POSITION].to_pylist()
    assert places == sorted(set(places))
    corner.add("c")
    assert take(corner, None, position)[0][POSITION][0].as_py() > places[-1]


def test_changes_wait_for_their_interval_and_come_once(corner: Corner) -> None:
    _, position = take(corner)
    ends = []
    for sku in ("now", "next", "last"):
        corner.add(sku)
        ends.append(corner.cut())
    for end, sku in zip(ends, ("now", "next", "last"), strict=True):
        taken, position = take(corner, end, position)
        assert news(taken) == [("insert", sku)]
    assert take(corner, None, position)[0].num_rows == 0


def test_an_interval_left_out_is_taken_by_the_next(corner: Corner) -> None:
    _, position = take(corner)
    corner.add("a")
    corner.cut()
    corner.add("b")
    assert skus(take(corner, None, position)[0]) == ["a", "b"]


def test_a_long_transaction_is_taken_whole_after_its_commit(corner: Corner) -> None:
    """It began, and wrote, before the interval's end, and committed after the extraction."""
    corner.add("first")
    _, position = take(corner)
    with corner.transaction() as slow:
        corner.put(slow, "slow 1")
        if corner.mode.parallel:
            corner.add("quick")
        taken, position = take(corner, None, position)
        assert skus(taken) == (["quick"] if corner.mode.parallel else [])
        corner.put(slow, "slow 2")
    taken, position = take(corner, None, position)
    assert skus(taken) == ["slow 1", "slow 2"]
    if corner.mode.named:
        assert len(set(taken[TRANSACTION].to_pylist())) == 1
    assert take(corner, None, position)[0].num_rows == 0


def test_what_was_rolled_back_never_was(corner: Corner) -> None:
    _, position = take(corner)
    with corner.transaction() as connection:
        corner.put(connection, "never")
        connection.rollback()
    with corner.transaction() as connection:
        corner.put(connection, "kept")
        with connection.begin_nested() as inner:
            corner.put(connection, "nor this")
            inner.rollback()
    assert news(take(corner, None, position)[0]) == [("insert", "kept")]


def test_an_update_of_the_key_is_a_delete_and_an_insert(corner: Corner) -> None:
    corner.add("a", "b", stock=1)
    first, position = take(corner)
    goods = corner.tables[GOODS]
    renamed = goods.update().where(goods.c.sku == "a")
    corner.write(renamed.values(sku="a!", stock=2, touched=corner.now()))
    changes, _ = take(corner, None, position)
    assert sorted(news(changes)) == [("delete", "a"), ("insert", "a!")]
    if corner.mode.versions:
        assert news(changes) == [("delete", "a"), ("insert", "a!")]
        assert changes["stock"].to_pylist() == [1, 2]
    same(folded(corner, [first, changes]), corner.present())


def test_a_truncated_table(corner: Corner) -> None:
    corner.add("a", "b")
    first, position = take(corner)
    _, other = take(corner, table=SALES)
    before = corner.cut()
    verb = "DELETE FROM" if corner.engine.dialect.name == "sqlite" else "TRUNCATE"
    corner.write(sa.text(f"{verb} {GOODS}"))
    # A cursor sees rows vanish only when it compares keys: whatever the interval.
    vanished = 0 if corner.mode.versions else 2
    assert take(corner, before, position)[0].num_rows == vanished
    if corner.mode.truncate is not None:
        with pytest.raises(
            corner.mode.truncate, match=r"goods was (truncated|emptied).*(fresh snapshot|install)"
        ):
            checked(corner, position)
        assert take(corner, None, other, table=SALES)[0].num_rows == 0
        return
    changes, _ = take(corner, None, position)
    assert sorted(news(changes)) == [("delete", "a"), ("delete", "b")]
    same(folded(corner, [first, changes]), corner.present())


def test_bulk_statements_come_row_by_row(corner: Corner) -> None:
    many = 6_000
    _, position = take(corner)
    goods = corner.tables[GOODS]
    rows = [{"sku": f"{n:06}", "stock": n, "touched": corner.now()} for n in range(many)]
    with corner.transaction() as connection:
        for first in range(0, many, 1000):
            connection.execute(goods.insert().values(rows[first : first + 1000]))
    inserted, position = take(corner, None, position)
    assert skus(inserted) == [row["sku"] for row in rows]
    corner.write(goods.update().values(stock=goods.c.stock + 1, touched=corner.now()))
    corner.write(goods.delete().where(goods.c.stock > 10))
    deleted, position = take(corner, None, position)
    assert Counter(deleted[OP].to_pylist()) == Counter(
        update=many if corner.mode.versions else 10, delete=many - 10
    )
    same(folded(corner, [inserted, deleted]), corner.present())


def test_large_values_arrive_whole_and_in_bounded_batches(corner: Corner) -> None:
    """Also those that an update beside them leaves alone, which PostgreSQL does not log again."""
    goods = corner.tables[GOODS]
    _, start = take(corner)
    for number in range(24):
        corner.add(f"{number}", note=f"{number} ü" + chr(97 + number % 26) * 1_000_000, stock=0)
    corner.write(
        goods.update().where(goods.c.sku.in_(["3", "7"])).values(stock=1, touched=corner.now())
    )
    for after in (start, None):
        with corner.source.changes(GOODS, corner.cut(), after) as taken:
            batches = list(taken.batches)
        assert max(batch.nbytes for batch in batches) < BATCH_BYTES
        changes = pa.Table.from_batches(batches, taken.schema)
        same(folded(corner, [changes]), corner.present())


def test_an_application_whose_clock_is_wrong_loses_nothing(corner: Corner) -> None:
    """A time that the application wrote decides nothing but where it is the declared cursor."""
    corner.add("right")
    first, position = take(corner)
    now = corner.now()
    corner.add("slow", touched=now - SKEW)
    corner.add("years behind", touched=now - timedelta(days=900))
    corner.add("ahead", touched=now + SKEW)
    changes, position = take(corner, None, position)
    ahead = [] if corner.mode.capture == "cursor" else ["ahead"]
    assert sorted(skus(changes)) == sorted(["slow", "years behind", *ahead])
    later = max(corner.cut(), now + 2 * SKEW)
    if corner.mode.capture != "wal":  # which refuses an end that its server has not reached
        last, _ = take(corner, later, position)
        assert skus(last) == [each for each in ["ahead"] if each not in ahead]
        same(folded(corner, [first, changes, last]), corner.present())


def test_snapshot_and_stream_meet_while_writers_are_busy(corner: Corner) -> None:
    """Histories that begin at different times, each cut again and again: never a gap or overlap."""
    corner.add(*(f"hot {n}" for n in range(3)), stock=0)
    histories: list[tuple[Fold, Position]] = []
    with Busy(corner) as busy:
        for _ in range(3):
            busy.work_on(20)
            end = corner.cut()
            busy.work_on(10)
            for place, (fold, position) in enumerate(histories):
                changes, position = take(corner, end, position)
                fold.add(changes)
                histories[place] = (fold, position)
            if corner.mode.versions or not histories:  # An index of keys follows one history.
                changes, position = take(corner, end)
                fold = Fold(corner, GOODS)
                fold.add(changes)
                histories.append((fold, position))
            for other, _ in histories[1:]:
                same(other.state(), histories[0][0].state())
    present = corner.present()
    assert present.num_rows > 10
    for fold, position in histories:
        fold.add(take(corner, None, position)[0])
        same(fold.state(), present)


def test_the_first_extraction_holds_the_rows_of_its_end(corner: Corner) -> None:
    needs(corner, "versions")
    goods = corner.tables[GOODS]
    corner.add("stays", "goes", "grows", "moves", stock=1)
    end, expected = corner.cut(), corner.present()
    with corner.transaction() as connection:
        corner.erase(connection, "goes")
        corner.put(connection, "new")
        corner.put(connection, "grows", stock=2)
        connection.execute(goods.update().where(goods.c.sku == "moves").values(sku="moved"))
        corner.put(connection, "moved", stock=3)
        corner.put(connection, "brief")
    with corner.transaction() as connection:
        corner.put(connection, "goes", stock=4)
        corner.put(connection, "grows", stock=5)
        corner.erase(connection, "brief")
    first, position = take(corner, end)
    same(folded(corner, [first]), expected)
    second, _ = take(corner, None, position)
    same(folded(corner, [first, second]), corner.present())


def test_the_order_within_a_key_is_kept(corner: Corner) -> None:
    """Counters that concurrent writers raise by one: their changes count up, whatever the cuts."""
    counters = [f"hot {n}" for n in range(3)]
    corner.add(*counters, stock=0)
    pieces, position = [], None
    with Busy(corner) as busy:
        for _ in range(4):
            busy.work_on(20)
            taken, position = take(corner, corner.cut(), position)
            pieces.append(taken)
    pieces.append(take(corner, None, position)[0])
    changes = pa.concat_tables([piece.sort_by(POSITION) for piece in pieces])
    for sku in counters:
        seen = [row["stock"] for row in changes.to_pylist() if row["sku"] == sku]
        assert seen == sorted(set(seen))
        if corner.mode.versions:
            assert seen == list(range(seen[0], seen[-1] + 1))
            assert len(seen) > 3
        assert seen[-1] == max(row["stock"] for row in corner.present().to_pylist()
                               if row["sku"] == sku)  # fmt: skip


def test_a_transaction_lies_in_one_interval_of_every_table(corner: Corner) -> None:
    needs(corner, "whole")
    positions: dict[str, Any] = {table: take(corner, table=table)[1] for table in (GOODS, SALES)}
    with Busy(corner) as busy:
        for _ in range(5):
            busy.work_on(12)
            end = corner.cut()
            seen = {}
            for table in positions:
                taken, positions[table] = take(corner, end, positions[table], table=table)
                seen[table] = set(taken[TRANSACTION].to_pylist())
            assert seen[GOODS] == seen[SALES] != set()


def test_a_transaction_of_many_rows_lies_in_one_interval(corner: Corner) -> None:
    """Its statements come before the end and after it; its commit after both."""
    needs(corner, "whole")
    _, position = take(corner)
    with corner.transaction() as connection:
        for number in range(300):
            corner.put(connection, f"{number:03}")
        end = corner.cut()
        for number in range(300, 600):
            corner.put(connection, f"{number:03}")
    early, position = take(corner, end, position)
    late, _ = take(corner, None, position)
    assert sorted([early.num_rows, late.num_rows]) == [0, 600]


def test_an_extraction_can_be_made_again(corner: Corner) -> None:
    corner.add("a", "b")
    _, start = take(corner)
    with corner.transaction() as connection:
        corner.put(connection, "c")
        corner.erase(connection, "b")
    end = corner.cut()
    once, position = take(corner, end, start)
    assert once.num_rows == 2
    corner.add("too late for it")
    same(take(corner, end, start, position)[0], once)


def test_a_rerun_of_an_interval_is_the_stored_one(corner: Corner) -> None:
    corner.add("a", "b")
    start = corner.cut(whole=True)
    first = Interval(start - timedelta(seconds=1), start)
    extract.run(corner.run(first), GOODS)
    corner.add("c")
    second = Interval(start, corner.cut(whole=True))
    once = extract.run(corner.run(second), GOODS)
    run = corner.run(second)
    held = run.lake.read(f"changes/{GOODS}").sort_by(POSITION)
    manifests, version = run.ledger.manifests("extract"), run.lake.version(f"changes/{GOODS}")
    corner.add("d")
    assert extract_from(run, GOODS, corner.source) == once
    assert run.lake.version(f"changes/{GOODS}") == version
    assert run.ledger.manifests("extract") == manifests
    run.lake.remove(f"changes/{GOODS}", [second.key])
    assert extract.run(run, GOODS) == once
    same(run.lake.read(f"changes/{GOODS}").sort_by(POSITION), held)
    assert run.ledger.manifests("extract") == manifests


def test_nothing_to_take_is_an_empty_answer(corner: Corner) -> None:
    taken, position = take(corner)
    assert taken.num_rows == 0
    assert take(corner, None, position)[0].num_rows == 0


OPERATION = st.tuples(
    st.sampled_from(["put", "put", "erase", "rename", "again", "all"]),
    st.sampled_from("abcd"),
    st.sampled_from([None, "", "Käse 🧀 %s \\ '"]),
    st.sampled_from([None, Decimal("0.00"), Decimal("1.50"), Decimal("-2.25")]),
)
BLOCK = st.tuples(st.lists(OPERATION, max_size=5), st.booleans(), st.booleans())


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(blocks=st.lists(BLOCK, min_size=1, max_size=7))
def test_the_folded_changes_are_the_table(corner: Corner, blocks: Any) -> None:
    """Random transactions, some rolled back, cut anywhere: the log, folded, is the table.

    One history holds all examples; each of them is also cut a second time, from its beginning.
    """
    fold, position = Fold(corner, GOODS), None
    whole, begin = Fold(corner, GOODS), corner.cut()
    changes, begin = take(corner, begin)
    for each in (fold, whole):
        each.add(changes)
    position = begin
    for operations, kept, cut in blocks:
        with corner.transaction() as connection:
            for operation in operations:
                _operate(corner, connection, *operation)
            if not kept:
                connection.rollback()
        if cut:
            changes, position = take(corner, None, position)
            fold.add(changes)
            same(fold.state(), corner.present())
    fold.add(take(corner, None, position)[0])
    same(fold.state(), corner.present())
    if corner.mode.capture != "cursor":  # whose index of keys follows one history
        whole.add(take(corner, None, begin)[0])
        same(whole.state(), corner.present())


def _operate(
    corner: Corner, connection: Any, operation: str, sku: str, note: Any, amount: Any
) -> None:
    goods, touched = corner.tables[GOODS], corner.now()
    if operation == "put":
        corner.put(connection, sku, note=note, amount=amount)
    elif operation == "erase":
        corner.erase(connection, sku)
    elif operation == "rename":
        corner.erase(connection, f"r{sku}")
        renamed = goods.update().where(goods.c.sku == sku)
        connection.execute(renamed.values(sku=f"r{sku}", touched=touched))
    elif operation == "again":
        corner.put(connection, sku, note="first")
        corner.erase(connection, sku)
        corner.put(connection, sku, note=note)
    else:
        connection.execute(goods.update().values(amount=amount, touched=touched))
