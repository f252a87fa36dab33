"""What a change source promises where commit times are chosen, as a replay of a shop's past does.

The list in memory that other tests stand on, and the triggers with `freshrank.clock`, keep the same
promises. Every capture mode, with the servers' own clocks: `test_capture.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.servers.postgres import connect
from pipelines.extract import install, remove
from pipelines.extract.source import ChangeSource, Position, change_schema
from pipelines.extract.trigger.postgres.source import TriggerSource
from pipelines.shared.intervals import utc
from pipelines.shared.settings import Settings
from tests.extract.list_source import ListSource
from tests.extract.postgres_shop import PostgresTransaction, database, tiny

TABLE = "articles"


@dataclass
class Subject:
    """A source, a way to write into the database behind it, and what that holds."""

    source: ChangeSource
    begin: Callable[[str], Any]
    rows: Callable[[], list[dict[str, Any]]]
    clear: Callable[[], None]

    def write(self, at: str, *operations: tuple[str, dict[str, Any]]) -> None:
        transaction = self.begin(at)
        for operation, row in operations:
            getattr(transaction, operation)(TABLE, row)
        transaction.commit()

    def take(
        self, before: str, after: Position | None = None, upto: Position | None = None
    ) -> tuple[pa.Table, Position]:
        with self.source.changes(TABLE, utc(before), after, upto) as taken:
            return pa.Table.from_batches(list(taken.batches), taken.schema), taken.position


@pytest.fixture(
    params=[
        "list",
        pytest.param("trigger", marks=pytest.mark.services),
    ]
)
def subject(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Subject]:
    shop = tiny()
    if request.param == "list":
        source = ListSource(shop)

        def fresh() -> None:
            source.__init__(shop)  # type: ignore[misc]

        yield Subject(source, source.begin, lambda: source.table(TABLE), fresh)
        return
    secret = Settings(
        lake=str(tmp_path),
        ledger_url=f"sqlite:///{tmp_path}/ledger.db",
        mlflow_uri="",
        pseudonym_key="a key",
    )
    with database(request.getfixturevalue("postgres")) as url:

        def clear() -> None:
            remove(url, shop)
            with connect(url) as connection:
                connection.execute(f"DELETE FROM web.{TABLE}")
            install(url, shop)

        def rows() -> list[dict[str, Any]]:
            with connect(url) as connection:
                cursor = connection.execute(f"SELECT * FROM web.{TABLE}")
                names = [column.name for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        clear()
        yield Subject(
            TriggerSource(url, shop, secret),
            lambda at: PostgresTransaction(url, shop, at),
            rows,
            clear,
        )


def article(sku: str, amount: str | None = "1.00", kind: str = "tea") -> dict[str, Any]:
    return {
        "sku": sku,
        "kind": kind,
        "maker": None,
        "amount": None if amount is None else Decimal(amount),
    }


def skus(changes: pa.Table) -> list[str]:
    return changes["sku"].to_pylist()


def test_every_change_has_its_operation_time_and_place(subject: Subject) -> None:
    subject.write("2017-01-02T10:00:00.000001", ("insert", article("a")), ("insert", article("b")))
    subject.write("2017-01-03", ("update", article("a", "2.50")), ("delete", article("b")))
    changes, position = subject.take("2017-01-09")
    assert changes.schema == change_schema(tiny().tables[TABLE])
    assert changes["_op"].to_pylist() == ["insert", "insert", "update", "delete"]
    assert skus(changes) == ["a", "b", "a", "b"]
    assert changes["amount"].to_pylist()[2:] == [Decimal("2.50"), Decimal("1.00")]
    assert changes["_committed_at"][0].as_py() == utc("2017-01-02T10:00:00.000001")
    places = changes["_position"].to_pylist()
    assert places == sorted(set(places))
    first, second = changes["_transaction"].to_pylist()[1:3]
    assert first != second
    assert json.loads(json.dumps(position)) == position


def test_changes_wait_for_their_interval(subject: Subject) -> None:
    subject.write("2017-01-03", ("insert", article("now")))
    subject.write("2017-01-09", ("insert", article("at the end")))
    subject.write("2017-01-17", ("insert", article("later")))
    taken, position = subject.take("2017-01-09")
    assert skus(taken) == ["now"]
    taken, position = subject.take("2017-01-16", position)
    assert skus(taken) == ["at the end"]
    assert skus(subject.take("2017-01-23", position)[0]) == ["later"]


def test_a_transaction_in_flight_is_taken_whole_by_a_later_interval(subject: Subject) -> None:
    slow = subject.begin("2017-01-03")
    slow.insert(TABLE, article("slow 1"))
    subject.write("2017-01-04", ("insert", article("quick")))
    taken, position = subject.take("2017-01-09")
    assert skus(taken) == ["quick"]
    slow.insert(TABLE, article("slow 2"))
    slow.commit()
    taken, position = subject.take("2017-01-16", position)
    assert skus(taken) == ["slow 1", "slow 2"]
    assert skus(subject.take("2017-01-23", position)[0]) == []


def test_what_was_rolled_back_never_was(subject: Subject) -> None:
    transaction = subject.begin("2017-01-03")
    transaction.insert(TABLE, article("never"))
    transaction.rollback()
    subject.write("2017-01-04", ("insert", article("kept")))
    assert skus(subject.take("2017-01-09")[0]) == ["kept"]


def test_a_change_stamped_with_an_earlier_time_is_not_lost(subject: Subject) -> None:
    subject.write("2017-01-05", ("insert", article("a")))
    _, position = subject.take("2017-01-09")
    subject.write("2017-01-03", ("insert", article("stamped early")))
    taken, position = subject.take("2017-01-16", position)
    assert skus(taken) == ["stamped early"]


def test_an_interval_left_out_is_taken_by_the_next(subject: Subject) -> None:
    _, position = subject.take("2017-01-09")
    subject.write("2017-01-10", ("insert", article("a")))
    subject.write("2017-01-17", ("insert", article("b")))
    assert skus(subject.take("2017-01-23", position)[0]) == ["a", "b"]


def test_an_extraction_can_be_made_again(subject: Subject) -> None:
    subject.write("2017-01-03", ("insert", article("a")))
    _, start = subject.take("2017-01-09")
    subject.write("2017-01-10", ("insert", article("b")))
    once, end = subject.take("2017-01-16", start)
    subject.write("2017-01-11", ("insert", article("too late for it")))
    again, _ = subject.take("2017-01-16", start, upto=end)
    assert again.equals(once)


def test_nothing_to_take_is_an_empty_answer(subject: Subject) -> None:
    taken, position = subject.take("2017-01-09")
    assert taken.num_rows == 0
    assert subject.take("2017-01-16", position)[0].num_rows == 0


OPERATION = st.tuples(
    st.sampled_from(["insert", "update", "delete"]),
    st.sampled_from("abcd"),
    st.sampled_from([None, "0.00", "1.50", "-2.25"]),
)
BLOCK = st.tuples(st.lists(OPERATION, max_size=5), st.integers(0, 20), st.booleans(), st.booleans())


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(blocks=st.lists(BLOCK, max_size=8))
def test_the_folded_changes_are_the_table(subject: Subject, blocks: Any) -> None:
    """Random transactions, some rolled back, cut anywhere: the log, folded, is the table."""
    subject.clear()
    present: dict[str, Any] = {row["sku"]: row for row in subject.rows()}
    last: dict[str, Any] = {}
    seen: list[int] = []
    position: Position | None = None
    end = utc("2017-01-09")
    for operations, day, kept, cut in blocks:
        transaction = subject.begin(f"2017-01-{day + 1:02d}")
        after = dict(present)
        for operation, sku, amount in operations:
            if (operation == "insert") == (sku in after):
                continue
            row = after.pop(sku) if operation == "delete" else article(sku, amount)
            getattr(transaction, operation)(TABLE, row)
            if operation != "delete":
                after[sku] = row
        transaction.commit() if kept else transaction.rollback()
        present = after if kept else present
        if cut:
            end, position = _fold(subject, end, position, last, seen)
    _fold(subject, utc("2017-03-01"), position, last, seen)
    assert len(seen) == len(set(seen))
    folded = {
        sku: {name: row[name] for name in ("sku", "kind", "maker", "amount")}
        for sku, row in last.items()
        if row["_op"] != "delete"
    }
    assert folded == present == {row["sku"]: row for row in subject.rows()}


def _fold(
    subject: Subject,
    end: datetime,
    position: Position | None,
    last: dict[str, Any],
    seen: list[int],
) -> tuple[datetime, Position]:
    """Take what is due; the place of a change, not the time it was taken, orders its key."""
    with subject.source.changes(TABLE, end, position) as taken:
        rows = pa.Table.from_batches(list(taken.batches), taken.schema).to_pylist()
    for row in rows:
        seen.append(row["_position"])
        if row["_position"] > last.get(row["sku"], {"_position": 0})["_position"]:
            last[row["sku"]] = row
    return end + (end - utc("2017-01-02")) / 2, taken.position
