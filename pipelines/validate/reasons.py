"""The reason of a quarantined row in words: which column, which value, which rule, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipelines.validate.expectations import RuleResult, frame_of, in_utc
from pipelines.validate.suite import Rule

_LONGEST_VALUE = 60


def reasons(
    table: str, results: Sequence[RuleResult], changes: pa.Table
) -> tuple[npt.NDArray[np.int64], pa.Array[Any]]:
    """Describe for every unsound row what is wrong with it.

    Returns the unsound rows, ascending and once each, and as many texts; a row's faults are in the
    suite's order, separated by ` | `.
    """
    parts = [
        pd.DataFrame({"row": each.rows, "rule": number, "text": _texts(table, each, changes)})
        for number, each in enumerate(results)
        if len(each.rows)
    ]
    if not parts:
        return np.empty(0, dtype=np.int64), pa.array([], pa.string())
    faults = pd.concat(parts).sort_values(["row", "rule"], kind="stable")
    joined = faults.groupby("row", sort=True)["text"].agg(" | ".join)
    return joined.index.to_numpy(dtype=np.int64), pa.array(joined.to_list(), pa.string())


def _texts(table: str, result: RuleResult, changes: pa.Table) -> pd.Series[Any]:
    """`quantity: -3 is below 0 (order_lines: a sale …; expect_column_values_to_be_between)`."""
    rule = result.rule
    rows = changes.take(result.rows)
    suffix = f" ({table}: {rule.why}; {rule.type})"
    return ", ".join(rule.columns) + ": " + _fault(rule, rows) + suffix


def _fault(rule: Rule, rows: pa.Table) -> pd.Series[Any]:
    first = _shown(rows.column(rule.columns[0]))
    if rule.type == "expect_column_values_to_not_be_null":
        return pd.Series("is missing", index=first.index)
    if rule.type == "expect_column_pair_values_a_to_be_greater_than_b":
        relation = "before" if _has_times(rule, rows) else "below"
        if not rule.kwargs.get("or_equal"):
            relation = "not after" if _has_times(rule, rows) else "not above"
        return first + f" is {relation} " + _shown(rows.column(rule.columns[1]))
    if rule.type == "expect_column_values_to_be_between":
        return first + _beyond(rule, rows)
    values = first
    for name in rule.columns[1:]:
        values = values + ", " + _shown(rows.column(name))
    return values + " " + _expected(rule)


def _beyond(rule: Rule, rows: pa.Table) -> pd.Series[Any]:
    """Which bound each value lies beyond."""
    values = frame_of([rule], rows)[rule.columns[0]]
    low, high = in_utc(rule.kwargs.get("min_value")), in_utc(rule.kwargs.get("max_value"))
    under = _relation(rule, rows, "strict_min", "before", "below", low)
    over = _relation(rule, rows, "strict_max", "after", "above", high)
    if low is None or high is None:
        return pd.Series(over if low is None else under, index=values.index)
    below = values <= low if rule.kwargs.get("strict_min") else values < low
    return pd.Series(np.where(below, under, over), index=values.index)


def _relation(rule: Rule, rows: pa.Table, strict: str, time: str, number: str, bound: Any) -> str:
    relation = time if _has_times(rule, rows) else number
    shown = f"{bound:%Y-%m-%dT%H:%M:%SZ}" if isinstance(bound, pd.Timestamp) else bound
    return f" is {relation}{' or equal to' if rule.kwargs.get(strict) else ''} {shown}"


def _has_times(rule: Rule, rows: pa.Table) -> bool:
    return bool(pa.types.is_temporal(rows.schema.field(rule.columns[0]).type))


def _expected(rule: Rule) -> str:
    """The rule read backwards: `to_be_in_set` of [a, b] becomes `fails to be in set …`."""
    name = rule.type.partition("_to_")[2].replace("_", " ")
    arguments = {
        key: value for key, value in rule.kwargs.items()
        if not key.startswith("column") and key != "ignore_row_if"
    }  # fmt: skip
    given = ", ".join(str(value) for value in arguments.values())
    return f"fails to {name} {given}".rstrip()


def _shown(column: pa.ChunkedArray[Any]) -> pd.Series[Any]:
    """Values as a person reads them: texts in quotes and shortened, missing ones marked."""
    texts = pd.Series(column.cast(pa.string()).to_pandas(), dtype=object)
    shown = texts.str.slice(0, _LONGEST_VALUE)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        shown = "'" + shown + "'"
    elif pa.types.is_timestamp(column.type):
        shown = shown.str.replace(r"(\.0+)?Z$", "Z", regex=True)
    return shown.fillna("(missing)")
