"""The port of an engine, and what is the same on every engine: joins, ranks, Arrow schemas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared.columns import ITEM

Table = Any
"""An Ibis table expression."""
Value = Any
"""An Ibis column expression."""

_TIME = pa.timestamp("us", tz="UTC")


class Engine(ABC):
    """Evaluates Ibis expressions. Times are int64 microseconds since 1970 inside it, so that no
    engine's time zone rules can matter."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._names: list[str] = []
        self._serial = 0

    @abstractmethod
    def load(self, rows: pa.Table) -> Table:
        """Make an Arrow table readable; times become int64 microseconds."""

    @abstractmethod
    def materialize(self, expression: Table) -> Table:
        """Evaluate an expression once and keep the rows for the scope."""

    @abstractmethod
    def close(self) -> None:
        """End the engine; nothing that it held is readable afterwards."""

    @abstractmethod
    def _collect(self, expression: Table) -> pa.Table: ...

    @abstractmethod
    def _drop(self, name: str) -> None: ...

    def arrow(self, expression: Table, schema: pa.Schema, *order: str) -> pa.Table:
        """Evaluate an expression as Arrow.

        Args:
            schema: columns wanted, in this order; timestamps are read from microseconds.
            order: columns that give the rows a total order; none for rows in any order.
        """
        rows = conform(self._collect(expression.select(*schema.names)), schema)
        return ordered(rows, order, self._threads)

    def count(self, expression: Table) -> int:
        """The number of rows."""
        return int(self._collect(expression.agg(rows=expression.count()))["rows"][0].as_py())

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Free what was loaded and materialized inside the block."""
        before = len(self._names)
        try:
            yield
        finally:
            for name in self._names[before:]:
                self._drop(name)
            del self._names[before:]

    def _name(self) -> str:
        self._serial += 1
        name = f"rows_{self._serial}"  # Ibis names parts of a query t1, t2 …
        self._names.append(name)
        return name


def ordered(rows: pa.Table, keys: Sequence[str], threads: int) -> pa.Table:
    """Sort rows by some columns; far faster for wide rows than an engine's own sort."""
    if not keys:
        return rows
    places = pc.sort_indices(rows.select(keys), sort_keys=[(key, "ascending") for key in keys])
    with ThreadPoolExecutor(threads) as pool:
        columns = list(pool.map(lambda column: column.combine_chunks().take(places), rows.columns))
    return pa.Table.from_arrays(columns, schema=rows.schema)


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give a table exactly these columns and types, in this order."""
    columns = [pc.cast(rows[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def without_times(rows: pa.Table) -> pa.Table:
    """A table with int64 microseconds since 1970 in place of dates and times."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_temporal(field.type):
            instants = pc.cast(pc.cast(rows[field.name], _TIME), pa.int64())
            rows = rows.set_column(place, field.name, instants)
    return rows


def attach(left: Table, right: Table, *keys: str) -> Table:
    """Left join on equal keys; the right side's other columns are added."""
    return attach_all(left, [(right, keys)])


def attach_all(left: Table, others: Sequence[tuple[Table, tuple[str, ...]]]) -> Table:
    """Left join several tables, each on columns of its own that are equal to the left side's.

    One chain of joins and one selection: Ibis compiles it much faster than nested ones.
    """
    joined, wanted = left, list(left.columns)
    for place, (right, keys) in enumerate(others):
        marked = right.rename({f"_{place}_{key}": key for key in keys})
        equal = [joined[key] == marked[f"_{place}_{key}"] for key in keys]
        joined = joined.left_join(marked, equal)
        wanted += [name for name in right.columns if name not in keys]
    return joined.select(*wanted)


def place(rows: Table, score: str, *within: str) -> Value:
    """Rank from 0 by a score, the largest first; items settle ties."""
    order = ibis.window(group_by=list(within), order_by=[ibis.desc(rows[score]), ITEM])
    return ibis.row_number().over(order)
