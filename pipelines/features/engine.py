"""Where Ibis expressions run: DuckDB, with bounded memory, Arrow in and Arrow out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared.settings import Settings

Table = Any
"""An Ibis table expression."""
Value = Any
"""An Ibis column expression."""

_TIME = pa.timestamp("us", tz="UTC")


class Engine:
    """One DuckDB connection. Times are int64 microseconds since 1970 inside it, so that no
    engine's time zone rules can matter.

    Args:
        settings: threads and memory limit.
        spill: folder for what does not fit into memory.
    """

    def __init__(self, settings: Settings, spill: str) -> None:
        self._ibis = ibis.duckdb.connect(
            threads=settings.threads,
            memory_limit=settings.memory_limit,
            temp_directory=spill,
            preserve_insertion_order=False,
        )
        self._names: list[tuple[str, bool]] = []
        self._serial = 0

    def _name(self, kept: bool) -> str:
        self._serial += 1
        name = f"t{self._serial}"
        self._names.append((name, kept))
        return name

    def load(self, rows: pa.Table) -> Table:
        """Make an Arrow table readable, without a copy; times become int64 microseconds."""
        name = self._name(kept=False)
        self._ibis.con.register(name, _without_times(rows))
        return self._ibis.table(name)

    def keep(self, expression: Table) -> Table:
        """Work an expression out once and keep the result for the scope."""
        name = self._name(kept=True)
        return self._ibis.create_table(name, expression, temp=True)

    def arrow(self, expression: Table, schema: pa.Schema, *order: str) -> pa.Table:
        """Work an expression out as Arrow.

        Args:
            schema: columns wanted, in this order; timestamps are read from microseconds.
            order: columns that give the rows a total order.
        """
        found = self._ibis.to_pyarrow(expression.select(*schema.names).order_by(*order))
        return conform(found, schema)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Free what was loaded and kept inside the block."""
        before = len(self._names)
        try:
            yield
        finally:
            for name, kept in self._names[before:]:
                if kept:
                    self._ibis.con.execute(f"DROP TABLE IF EXISTS {name}")
                else:
                    self._ibis.con.unregister(name)
            del self._names[before:]

    def close(self) -> None:
        """Let go of the connection."""
        self._ibis.disconnect()


@contextmanager
def engine(settings: Settings) -> Iterator[Engine]:
    """An engine with a spill folder of its own, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="freshrank-") as spill:
        opened = Engine(settings, spill)
        try:
            yield opened
        finally:
            opened.close()


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give a table exactly these columns and types, in this order."""
    columns = [pc.cast(rows[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _without_times(rows: pa.Table) -> pa.Table:
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
