"""Turns rows of any database into Arrow arrays, one a stored column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from pipelines.extract.pseudonyms import pseudonymise
from pipelines.shared.declaration import Table
from pipelines.shared.errors import SchemaDrift

MISFITS = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError)
"""What converting a value raises that does not fit the type wanted."""


def arrays(
    name: str,
    table: Table,
    rows: Sequence[tuple[Any, ...]],
    key: bytes,
    array: Callable[[str, Sequence[Any], pa.DataType], Any],
) -> list[Any]:
    """Rows of stored columns as one Arrow array a column, pseudonyms in place.

    The rows are in the order of the stored columns; `array` converts the values of a named column.

    Raises:
        SchemaDrift: a value does not fit its declared type.
    """
    stored = table.stored_columns()
    columns = zip(*rows, strict=True) if rows else [()] * len(stored)
    converted = []
    for (column, kind), values in zip(stored.items(), columns, strict=True):
        try:
            converted.append(array(column, values, kind))
        except MISFITS as error:
            raise misfit(name, column, error) from error
        if table.personal.get(column) == "pseudonymise":
            converted[-1] = pseudonymise(converted[-1], key)
    return converted


def without(rows: pa.Table, absent: pa.Table) -> pa.Table:
    """The rows whose key is not among the absent ones, in their order."""
    numbered = rows.append_column("_place", pa.array(range(rows.num_rows)))
    kept = numbered.join(absent, absent.column_names, join_type="left anti")
    return rows.take(kept["_place"].combine_chunks().sort())


def misfit(table: str, column: str, error: Exception) -> SchemaDrift:
    """The error that a value does not fit its column's declared type."""
    return SchemaDrift(
        f"{table}.{column} holds a value that does not fit its declared type ({error}); declare "
        f"a wider type in `tables.{table}.columns.{column}`"
    )
