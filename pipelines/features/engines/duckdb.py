"""DuckDB as an engine: one process, whose temporary tables spill to disk."""

from __future__ import annotations

from pathlib import Path

import ibis
import pyarrow as pa

from pipelines.features.engines.base import Engine, Table, without_times
from pipelines.shared.settings import Settings


class DuckDB(Engine):
    """One DuckDB connection.

    Args:
        settings: threads and memory limit.
        spill: folder for what does not fit into memory.
    """

    def __init__(self, settings: Settings, spill: Path) -> None:
        super().__init__(settings.threads)
        self._ibis = ibis.duckdb.connect(
            threads=settings.threads,
            memory_limit=settings.memory_limit,
            temp_directory=str(spill),
            preserve_insertion_order=False,
        )
        self._tables: set[str] = set()

    def load(self, rows: pa.Table) -> Table:
        """Without a copy."""
        name = self._name()
        self._ibis.con.register(name, without_times(rows))
        return self._ibis.table(name)

    def materialize(self, expression: Table) -> Table:
        """As a temporary table, which spills."""
        name = self._name()
        self._tables.add(name)
        return self._ibis.create_table(name, expression, temp=True)

    def close(self) -> None:
        """Close the connection."""
        self._ibis.disconnect()

    def _collect(self, expression: Table) -> pa.Table:
        rows: pa.Table = self._ibis.to_pyarrow(expression)
        return rows

    def _drop(self, name: str) -> None:
        if name in self._tables:
            self._ibis.con.execute(f"DROP TABLE IF EXISTS {name}")
        else:
            self._ibis.con.unregister(name)
