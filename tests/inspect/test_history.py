"""Time travel: folding the change log up to a time equals the source table at that time."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.servers.postgres import connect
from pipelines import extract as stage
from pipelines.extract import install
from pipelines.extract.stage import extract
from pipelines.inspect.history import rows_at
from pipelines.shared.errors import CorruptPartition, DeclarationError, NotExtracted
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.run import Installation
from pipelines.shared.settings import Settings
from tests.extract.list_source import ListSource
from tests.extract.postgres_shop import DECLARED, PostgresTransaction, database, tiny
from tests.extract.test_stage import TABLE, WEEKS, living_source

FIRST = datetime(2017, 1, 2, tzinfo=UTC)
SKUS = ("a", "b", "ç", "", "e")
Operation = tuple[str, str, str]


def opened(folder: Path, **changed: Any) -> Installation:
    return Installation.open(
        Settings(
            lake=str(folder / "lake"),
            ledger_url=f"sqlite:///{folder}/ledger.db",
            mlflow_uri="",
            shops=DECLARED,
            **changed,
        ),
        "tiny",
    )


def held_rows(installation: Installation, at: datetime, limit: int | None = None) -> list[Any]:
    """The folded rows, in the order they come."""
    with rows_at(installation, TABLE, at, limit) as rows:
        held: list[Any] = rows.read_all().to_pylist()
    return held


def article(sku: str, kind: str) -> dict[str, Any]:
    return {"sku": sku, "kind": kind, "maker": None, "amount": None}


def write(source: ListSource, at: datetime, operations: list[Operation], ends: str) -> None:
    """One transaction; an operation that the table forbids is left out."""
    transaction = source.begin(at.isoformat())
    for op, sku, kind in operations:
        present = (sku,) in source.rows[TABLE]
        if op == "insert" and not present:
            transaction.insert(TABLE, article(sku, kind))
        elif op == "update" and present:
            transaction.update(TABLE, article(sku, kind))
        elif op == "delete" and present:
            transaction.delete(TABLE, article(sku, kind))
    transaction.commit() if ends == "commit" else transaction.rollback()


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "update", "delete"]),
        st.sampled_from(SKUS),
        st.sampled_from(["fresh", "stale", "é", ""]),
    ),
    max_size=6,
)
ENDS = st.sampled_from(["commit", "commit", "rollback"])
WEEK = st.lists(st.tuples(OPERATIONS, ENDS), max_size=5)


@settings(max_examples=30, deadline=None)
@given(weeks=st.lists(WEEK, min_size=1, max_size=5), skipped=st.sets(st.integers(0, 3)))
def test_the_fold_equals_the_table_at_every_intervals_end(
    weeks: list[list[tuple[list[Operation], str]]], skipped: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        installation = opened(Path(folder))
        source, held = ListSource(installation.shop), {}
        taken = {*range(len(weeks))} - skipped | {len(weeks) - 1}
        for number, transactions in enumerate(weeks):
            interval = Interval(
                FIRST + timedelta(weeks=number), FIRST + timedelta(weeks=number + 1)
            )
            for place, (operations, ends) in enumerate(transactions):
                write(source, interval.start + timedelta(days=place + 1), operations, ends)
            held[interval.end] = sorted(source.table(TABLE), key=lambda row: row["sku"].encode())
            if number in taken:
                extract(installation.run(interval), TABLE, source)
        for end, rows in held.items():
            if end >= FIRST + timedelta(weeks=min(taken) + 1):
                assert held_rows(installation, end) == rows


def test_a_late_change_counts_from_the_interval_that_saw_it(tmp_path: Path) -> None:
    installation, source = opened(tmp_path), ListSource(tiny())
    slow = source.begin("2017-01-04")
    slow.insert(TABLE, article("slow", "k"))
    extract(installation.run(WEEKS[0]), TABLE, source)
    slow.commit()
    extract(installation.run(WEEKS[1]), TABLE, source)
    assert held_rows(installation, WEEKS[0].end) == []
    assert held_rows(installation, WEEKS[1].end) == [article("slow", "k")]


def test_inside_an_interval_commit_times_decide(tmp_path: Path) -> None:
    installation, source = opened(tmp_path), living_source()
    extract(installation.run(WEEKS[0]), TABLE, source)
    at = held_rows(installation, utc("2017-01-05T12:00:00"))
    assert [row["sku"] for row in at] == ["late", "sku 2", "sku 3", "sku 4"]
    assert held_rows(installation, utc("2017-01-05T12:00:00"), 2) == at[:2]
    assert held_rows(installation, utc("2017-01-05T12:00:00"), 0) == []


def test_what_is_not_known_is_an_error(tmp_path: Path) -> None:
    installation = opened(tmp_path)
    with pytest.raises(NotExtracted, match="it was extracted not at all yet"):
        held_rows(installation, WEEKS[0].end)
    extract(installation.run(WEEKS[1]), TABLE, living_source())
    for at in (WEEKS[0].end, WEEKS[2].end):
        with pytest.raises(NotExtracted, match=r"from 2017-01-09T00:00:00Z to 2017-01-16T00"):
            held_rows(installation, at)
    with (
        pytest.raises(DeclarationError, match="'prices' is not declared"),
        rows_at(installation, "prices", WEEKS[1].end),
    ):
        pass


def test_a_damaged_partition_is_named(tmp_path: Path) -> None:
    installation = opened(tmp_path)
    extract(installation.run(WEEKS[0]), TABLE, living_source())
    next((tmp_path / "lake").rglob("*.parquet")).write_bytes(b"broken")
    with pytest.raises(CorruptPartition, match=r"changes/articles.*pipelines verify --shop tiny"):
        held_rows(installation, WEEKS[0].end)


@pytest.mark.services
def test_it_equals_the_shops_own_table(postgres, tmp_path: Path) -> None:
    with database(postgres) as url:
        installation = opened(tmp_path, connections={"tiny": url}, pseudonym_key="key")
        install(url, installation.shop, utc("2017-01-01"))
        held: dict[datetime, pa.Table] = {}
        for number, week in enumerate(WEEKS):
            for day in range(1, 6):
                at = f"{week.start + timedelta(days=day):%FT%T}"
                transaction = PostgresTransaction(url, installation.shop, at)
                sku = f"{number}/{day}"
                row = {"sku": sku, "kind": "é", "maker": "", "amount": f"{day}.10"}
                transaction.insert(TABLE, row)
                transaction.update(TABLE, row | {"kind": None})
                if number:
                    transaction.delete(TABLE, {"sku": f"{number - 1}/{day}"})
                transaction.commit()
            with connect(url) as connection:
                rows = connection.execute("SELECT * FROM web.articles ORDER BY sku").fetchall()
            held[week.end] = rows
            stage.run(installation.run(week), TABLE)
        for end, rows in held.items():
            assert [tuple(row.values()) for row in held_rows(installation, end)] == rows
        with rows_at(installation, TABLE, WEEKS[3].end) as reader:
            declared = installation.shop.tables[TABLE].stored_columns()
            assert dict(zip(reader.schema.names, reader.schema.types, strict=True)) == declared
