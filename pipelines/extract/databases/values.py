"""Turns rows of any database into Arrow arrays, one a stored column.

A value that its declared type cannot hold, such as a decimal NaN, stops no table: it is null, and
the column `_misfits` says what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.extract.pseudonyms import pseudonymise
from pipelines.shared.declaration import Table

_DOES_NOT_FIT = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError, TypeError)
"""What converting a value raises that does not fit the type wanted."""
_LONGEST_VALUE = 60


class Misfits:
    """Collects the values of some rows of a table that their declared types cannot hold."""

    def __init__(self, table: Table, rows: int) -> None:
        self._table, self._rows = table, rows
        self._texts: list[Any] = []

    def fitted(self, column: str, values: Any, convert: Callable[[Any], Any]) -> Any:
        """The values as an Arrow array; null where one does not fit.

        `convert` gives a sequence of them, or an Arrow array, as an Arrow array.
        """
        array, texts = _fitted(values, convert, self._table.stored_columns()[column])
        self.add(column, texts)
        return array

    def add(self, column: str, texts: Any) -> None:
        """Take what does not fit a column, as texts; null where a value does."""
        if texts.null_count == len(texts):
            return
        kind = self._table.columns[column]
        shown: Any = pc.utf8_slice_codeunits(texts, 0, _LONGEST_VALUE)
        if column in self._table.personal:
            shown = pc.if_else(texts.is_valid(), "a personal value", shown)
        suffix = f" does not fit {kind}"
        self._texts.append(pc.binary_join_element_wise(f"{column}: ", shown, suffix, ""))

    def array(self) -> Any:
        """What does not fit, in words, a row; null where all does."""
        joined: Any = pa.nulls(self._rows, pa.string())
        for texts in self._texts:
            joined = pc.coalesce(pc.binary_join_element_wise(joined, texts, " | "), joined, texts)
        return joined


def _fitted(values: Any, convert: Callable[[Any], Any], kind: Any) -> tuple[Any, Any]:
    """Values as an array of a type, and as texts those that do not fit, found by halving."""
    try:
        return convert(values), pa.nulls(len(values), pa.string())
    except _DOES_NOT_FIT:
        if len(values) == 1:
            return pa.nulls(1, kind), pa.array([str(values[0])])
    half = len(values) // 2
    left, right = (_fitted(some, convert, kind) for some in (values[:half], values[half:]))
    return pa.concat_arrays([left[0], right[0]]), pa.concat_arrays([left[1], right[1]])


def arrays(
    table: Table,
    rows: Sequence[tuple[Any, ...]],
    key: bytes,
    array: Callable[[str, Sequence[Any], pa.DataType], Any],
) -> list[Any]:
    """Rows of stored columns as one Arrow array a column, pseudonyms in place, and the misfits.

    The rows are in the order of the stored columns; `array` converts the values of a named column.
    """
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(table.stored_columns())
    return fitted(table, columns, key, array)


def fitted(
    table: Table,
    columns: Sequence[Sequence[Any]],
    key: bytes,
    array: Callable[[str, Sequence[Any], pa.DataType], Any],
    outside: Mapping[str, Sequence[str | None]] = MappingProxyType({}),
) -> list[Any]:
    """The same of columns; `outside` has, by column, texts of values that were read as null."""
    stored = table.stored_columns()
    misfits = Misfits(table, len(columns[0]))
    converted = []
    for (column, kind), values in zip(stored.items(), columns, strict=True):
        convert = partial(lambda name, kind, some: array(name, some, kind), column, kind)
        fits = misfits.fitted(column, values, convert)
        if column in outside:
            misfits.add(column, pa.array(outside[column], pa.string()))
        if table.personal.get(column) == "pseudonymise":
            fits = pseudonymise(fits, key)
        converted.append(fits)
    return [*converted, misfits.array()]


def without(rows: pa.Table, absent: pa.Table) -> pa.Table:
    """The rows whose key is not among the absent ones, in their order."""
    numbered = rows.append_column("_place", pa.array(range(rows.num_rows)))
    kept = numbered.join(absent, absent.column_names, join_type="left anti")
    return rows.take(kept["_place"].combine_chunks().sort())
