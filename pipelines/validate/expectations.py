"""Suites applied to changes by Great Expectations (pandas engine, in memory, offline).

The suite's rules become expectations one to one. Great Expectations is imported only here, when
there are rows to check: the import takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared.columns import DELETE, OP
from pipelines.shared.errors import SuiteError
from pipelines.validate.suite import Rule, Suite, unknown

_EXACT_IN_A_FLOAT = 2**53
_NOT_FOR_SUITES = (
    "id", "meta", "notes", "description", "severity", "result_format", "catch_exceptions",
    "rendered_content", "windows", "batch_id", "row_condition", "condition_parser",
    "library_metadata",
)  # fmt: skip
"""Arguments of every expectation that a suite states in another way, or not at all."""


@dataclass(frozen=True)
class RuleResult:
    """One rule applied: the rows that break it, by their place in the changes."""

    rule: Rule
    passed: bool
    rows: npt.NDArray[np.int64]
    observed: str


@dataclass(frozen=True)
class SuiteResult:
    """All rules applied, and Great Expectations' own result for its Data Docs."""

    rules: tuple[RuleResult, ...]
    document: Any


def apply(suite: Suite, rules: Sequence[Rule], changes: pa.Table) -> SuiteResult:
    """Apply some of a suite's rules to changes of its table, at least one, in one validation run.

    Raises:
        SuiteError: a rule is no expectation, has a wrong argument, or cannot be evaluated on
            these changes.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
    )

    frame = frame_of(rules, changes)
    spare = bool(pc.any(pc.equal(changes.column(OP), pa.scalar(DELETE))).as_py())
    expectations = [
        _expectation(suite, rule, number, spare and suite.spares_deletes(rule))
        for number, rule in enumerate(rules)
    ]
    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            progress_bars={"globally": False, "metric_calculations": False},
            analytics_enabled=False,
        ),
    )
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset(suite.table)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=suite.table,
            data=asset.add_batch_definition_whole_dataframe("changes"),
            suite=context.suites.add(
                gx.ExpectationSuite(name=suite.table, expectations=expectations)
            ),
        )
    )
    result = definition.run(
        batch_parameters={"dataframe": frame},
        # Without named index columns it names rows by the frame's own index: their places. That
        # takes a twentieth of the time where many rows fail.
        result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
    )
    by_rule = {each.expectation_config.meta["rule"]: each for each in result.results}
    return SuiteResult(
        tuple(_rule_result(suite, rule, by_rule[number]) for number, rule in enumerate(rules)),
        result,
    )


def frame_of(rules: Sequence[Rule], changes: pa.Table) -> pd.DataFrame:
    """The columns that the rules need, as pandas: numbers, texts and UTC times.

    Decimals become floats: bounds are compared, nothing is computed from them.
    """
    needed = {name for rule in rules for name in rule.columns} | {OP}
    if any(not rule.columns for rule in rules):
        needed = set(changes.column_names)
    names = [name for name in changes.column_names if name in needed]
    return pd.DataFrame({name: _series(changes.column(name)) for name in names})


def _series(column: pa.ChunkedArray[Any]) -> pd.Series[Any]:
    kind = column.type
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.timestamp("us", tz="UTC"))
    elif pa.types.is_integer(kind) and column.null_count:
        # Floats compare with missing values as Great Expectations expects, where they are exact.
        ends = [end.as_py() or 0 for end in (pc.min(column), pc.max(column))]
        if max(-ends[0], ends[1]) > _EXACT_IN_A_FLOAT:
            return column.to_pandas(types_mapper=lambda _: pd.Int64Dtype())
    return column.to_pandas()


def _expectation(suite: Suite, rule: Rule, number: int, spare_deletes: bool) -> Any:
    from great_expectations.compatibility import pydantic
    from great_expectations.expectations.row_conditions import Column

    kind = _implementation(suite, rule)
    accepted = [name for name in kind.__fields__ if name not in _NOT_FOR_SUITES]
    for name in rule.kwargs:
        if name not in accepted:
            what = f"an argument of {rule.type}"
            raise suite.fault(rule, f"kwargs.{name}", unknown(name, what, accepted))
    _check_meaning(suite, rule, accepted)
    arguments = {name: in_utc(value) for name, value in rule.kwargs.items()}
    if spare_deletes and "row_condition" in kind.__fields__:
        arguments["row_condition"] = Column(OP) != DELETE
    try:
        return kind(**arguments, meta={"rule": number}, notes=rule.why)
    except pydantic.ValidationError as error:
        faults = {
            ".".join(str(part) for part in fault["loc"]).replace("__root__", ""): fault["msg"]
            for fault in error.errors()
        }
        refusals = "; ".join(f"{place}: {text}".lstrip(": ") for place, text in faults.items())
        message = f"{rule.type} refuses {rule.kwargs}: {refusals}. Accepted: {', '.join(accepted)}"
        raise suite.fault(rule, "kwargs", message) from None


def _implementation(suite: Suite, rule: Rule) -> Any:
    from great_expectations.expectations import expectation, registry

    known = sorted(
        name
        for name in registry.list_registered_expectation_implementations()
        if "query" not in name and name.startswith("expect_") and "other_table" not in name
    )
    if rule.type not in known:
        raise suite.fault(rule, "type", unknown(rule.type, "an expectation", known))
    kind = registry.get_expectation_impl(rule.type)
    of_rows = (
        expectation.ColumnMapExpectation,
        expectation.ColumnPairMapExpectation,
        expectation.MulticolumnMapExpectation,
    )
    if rule.severity == "row" and not issubclass(kind, of_rows):
        message = f"{rule.type} is about a whole batch, not about single rows; accepted: batch"
        raise suite.fault(rule, "severity", message)
    return kind


def _check_meaning(suite: Suite, rule: Rule, accepted: Sequence[str]) -> None:
    """Refuse what Great Expectations accepts, though it means something else than it seems."""
    if rule.severity == "row" and "mostly" in rule.kwargs:
        message = "a row passes or does not; leave it out, or use severity: batch"
        raise suite.fault(rule, "kwargs.mostly", message)
    if "ignore_row_if" in accepted and "ignore_row_if" not in rule.kwargs:
        pair = "column_A" in accepted
        choices = (
            "both_values_are_missing, either_value_is_missing, neither"
            if pair
            else "all_values_are_missing, any_value_is_missing, never"
        )
        message = f"is required: state what a missing value means; accepted: {choices}"
        raise suite.fault(rule, "kwargs.ignore_row_if", message)


def in_utc(value: Any) -> Any:
    """An argument as the rules use it: dates and times in UTC, all else as it is."""
    if isinstance(value, list):
        return [in_utc(each) for each in value]
    if isinstance(value, date):
        moment = pd.Timestamp(value)
        return moment.tz_localize(UTC) if moment.tz is None else moment.tz_convert(UTC)
    return value


def _rule_result(suite: Suite, rule: Rule, result: Any) -> RuleResult:
    if (fault := _exception(result.exception_info)) is not None:
        message = f"cannot be evaluated on these changes: {fault}"
        raise suite.fault(rule, rule.type, message)
    places = result.result.get("unexpected_index_list") or []
    count = result.result.get("unexpected_count") or 0
    if rule.severity == "row" and len(places) != count:
        raise SuiteError(
            f"{suite.path}: {rule.label}: {count} rows break it, but Great Expectations names "
            f"{len(places)} of them; use another expectation for this rule"
        )
    rows = np.array(places, dtype=np.int64)
    observed = (
        f"{result.result.get('unexpected_percent') or 0:.2f} % of the values fail"
        if "unexpected_percent" in result.result
        else f"observed {result.result.get('observed_value')}"
    )
    return RuleResult(rule, bool(result.success), rows, observed)


def _exception(info: dict[str, Any]) -> str | None:
    """The first exception that Great Expectations caught: it reports them in two shapes."""
    nested = [each for each in info.values() if isinstance(each, dict)]
    for each in (info, *nested):
        if each.get("raised_exception"):
            return re.sub(r"\s+", " ", str(each.get("exception_message")))[:500]
    return None
