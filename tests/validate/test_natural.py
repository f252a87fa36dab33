"""The real shop's data passes with all its natural dirt; faults put into it are found, exactly."""

from __future__ import annotations

from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import validate
from pipelines.shared.columns import COMMITTED_AT, OP, POSITION, REASONS
from pipelines.shared.run import Run
from tests.validate.partitions import WEEK, extract, partition, real, real_lines, stored

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def year() -> pa.Table:
    return real_lines(share=10)


def test_real_lines_pass_whole(run: Run, year: pa.Table):
    assert pc.min(year.column("quantity")).as_py() == 0
    assert pc.max(year.column("quantity")).as_py() > 80_000, "fuel"
    assert pc.min(year.column("sales_value")).as_py() == 0
    extract(run, "order_lines", WEEK, year)
    done = validate.run(run, "order_lines")
    assert (done.valid, done.quarantined, done.duplicates) == (year.num_rows, 0, 0)


def test_the_real_catalogue_passes_without_prices_and_package_sizes(run: Run):
    with duckdb.connect() as engine:
        products = engine.sql(
            f"SELECT *, NULL::DECIMAL(10, 2) AS price FROM '{real('products')}'"
        ).to_arrow_table()
    assert products.column("package_size").null_count > 0
    extract(run, "products", WEEK, partition(run, "products", products.to_pylist()))
    assert validate.run(run, "products").valid == products.num_rows


FAULTS = ("household_id", "product_id", "order_id", "line_no", "quantity", "sales_value",
          "ordered_at")  # fmt: skip


Mixture = list[tuple[int, str, str]]
"""Places in the real lines, in any order and repeated, each with a fault (or none) and an op."""

# Not more rows than the suite tolerates unsound ones: here no batch is to be rejected.
MIXTURES = st.lists(
    st.tuples(
        st.integers(0, 11),
        st.sampled_from(["", "", "", *FAULTS]),
        st.sampled_from(["insert", "insert", "update", "delete"]),
    ),
    max_size=20,
)


def broken(column: str, table: pa.Table, where: np.ndarray) -> pa.Table:
    """Break a column of some rows."""
    values = table.column(column)
    if column == "quantity":
        wrong: pa.Array = pc.subtract(pc.negate(values), 1)
    elif column == "sales_value":
        wrong = pc.subtract(pa.scalar(Decimal(-1)), values).cast(values.type)
    elif column == "ordered_at":
        wrong = pc.add(table.column(COMMITTED_AT), pa.scalar(1, pa.duration("us")))
    else:
        wrong = pa.nulls(len(values), values.type)
    new = pc.if_else(pa.array(where), wrong, values)
    return table.set_column(table.schema.get_field_index(column), column, new)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mixture=MIXTURES)
def test_every_mixture_adds_up(mixture: Mixture, run: Run, year: pa.Table):
    fault = np.array([fault for _, fault, _ in mixture], dtype=object)
    op = np.array([op for *_, op in mixture], dtype=object)
    changes = year.take(pa.array([place for place, *_ in mixture], pa.int64()))
    for column in FAULTS:
        changes = broken(column, changes, fault == column)
    for name, values in ((OP, pa.array(op, pa.string())), (POSITION, np.arange(len(mixture)))):
        changes = changes.set_column(changes.schema.get_field_index(name), name, pa.array(values))
    extract(run, "order_lines", WEEK, changes)

    done = validate.run(run, "order_lines")

    assert done.extracted == len(mixture)
    assert done.extracted == done.valid + done.quarantined + done.duplicates
    unsound = (fault != "") & ((op != "delete") | np.isin(fault, ["order_id", "line_no"]))
    fine = set(stored(run, "valid/order_lines").column(POSITION).to_pylist())
    quarantined = stored(run, "quarantine/order_lines")
    reason = dict(
        zip(*(quarantined.column(name).to_pylist() for name in (POSITION, REASONS)), strict=True)
    )
    assert (len(fine), len(reason)) == (done.valid, done.quarantined)
    assert fine <= set(np.flatnonzero(~unsound))
    assert set(reason) <= set(np.flatnonzero(unsound))
    assert all(fault[place] in text.partition(": ")[0] for place, text in reason.items())
    # Only what came before in the same form can be a duplicate, and a delete never is.
    first = {each: place for place, each in reversed(list(enumerate(mixture)))}
    deletes = set(np.flatnonzero(op == "delete"))
    assert set(first.values()) | deletes <= fine | set(reason)
