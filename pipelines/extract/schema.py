"""Compares a shop's declaration with the tables that its databases have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipelines.shared.declaration import Shop, Table

_DIGITS_OF = re.compile(r"^(?:numeric|decimal)\((\d+), ?(\d+)\)")
_FLOATS = {"float4", "float8", "float", "double"}
_NARROW = (
    "bool", "int16", "int32", "int64", "uint32", "uint64", "date", "timestamp", "uuid", "bytes"
)  # fmt: skip


@dataclass(frozen=True)
class SourceColumn:
    """A column as the database has it: its type in full, the type's name and its category."""

    written: str
    type: str
    category: str


def missing_table(
    shop: Shop,
    table: str,
    known: Iterable[str],
    name: str = "",
    keys: str = "`tables` or the source's `schema`",
) -> str:
    """That a declared table is not there; `name` is how the database calls it."""
    near = difflib.get_close_matches(table, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"{name or table} is declared, but the database has no such table; {hint}mend {keys} in "
        f"{_file(shop)}"
    )


def compare(
    shop: Shop,
    table: str,
    columns: Mapping[str, SourceColumn],
    unfit: Callable[[str, SourceColumn], str],
) -> list[str]:
    """Compare the columns of a table with the declared ones; `unfit`: why values may not fit."""
    declared = shop.tables[table]
    faults = []
    for name, kind in declared.columns.items():
        taken = name in declared.auto_added
        if name not in columns:
            near = difflib.get_close_matches(name, set(columns) - set(declared.columns), n=1)
            hint = f" (is it now {near[0]!r}?)" if near else ""
            how = "taken" if taken else "declared"
            way_out = "list it under `ignore`" if taken else f"mend `tables.{table}.columns`"
            faults.append(
                f"{table}.{name} is {how}, but the table has no such column{hint}; {way_out} in "
                f"{_file(shop)} ({how} as {kind})"
            )
        elif name not in declared.personal and (wrong := unfit(kind, columns[name])):
            faults.append(
                f"{table}.{name} is {'taken as' if taken else 'declared'} {kind}, but the table "
                f"has {columns[name].written}, {wrong}; mend `tables.{table}.columns.{name}` in "
                f"{_file(shop)}"
            )
    if declared.new_columns == "ignore":
        return faults
    return faults + [
        f"{table}.{name} is new; add it to {_file(shop)} or list it under `ignore` "
        f"(found as {columns[name].written})"
        for name in columns
        if _unknown(name, declared)
    ]


def columns_to_add(
    declared: Table,
    columns: Mapping[str, SourceColumn],
    known: Mapping[str, str],
    unfit: Callable[[str, SourceColumn], str],
) -> dict[str, str]:
    """The undeclared columns that `new_columns: take` captures, in the source's order.

    Those known from before keep their type, also when they are gone; one of a type that no declared
    type fits is left out.
    """
    wanted = {
        name: known.get(name) or inferred(column, unfit)
        for name, column in columns.items()
        if _unknown(name, declared)
    }
    gone = {
        name: kind
        for name, kind in known.items()
        if name not in columns and _unknown(name, declared)
    }
    return {name: kind for name, kind in {**wanted, **gone}.items() if kind}


def unfit_decimal(
    kind: re.Match[str], column: SourceColumn, whole: Mapping[str, int], written: re.Pattern[str]
) -> str | None:
    """Why a column's numbers may not fit `decimal(p,s)`; None where it has no known digits.

    `whole` has the digits of integers; `written` finds the digits in the type of a decimal.
    """
    precision, scale = int(kind[1]), int(kind[2])
    if column.type in whole:
        needed, digits = 0, whole[column.type]
    elif match := written.match(column.written):
        needed, digits = int(match[2]), int(match[1]) - int(match[2])
    else:
        return None
    if needed <= scale and digits <= precision - scale:
        return ""
    return f"which holds {digits} digits before and {max(needed, 0)} after the point"


def inferred(column: SourceColumn, unfit: Callable[[str, SourceColumn], str]) -> str:
    """The narrowest declared type that takes every value of a column; empty where none does."""
    kinds = [*_NARROW, "string"]
    if match := _DIGITS_OF.search(column.written):
        kinds.insert(0, f"decimal({match[1]},{match[2]})")
    if column.type in _FLOATS:
        kinds.insert(0, "float64")
    return next((kind for kind in kinds if not unfit(kind, column)), "")


def _unknown(name: str, declared: Table) -> bool:
    return name not in declared.columns and name not in declared.ignore


def _file(shop: Shop) -> str:
    return f"shops/{shop.shop}/shop.yaml"
