"""A table's suite: `expectations/<shop>/<table>.yaml`, read strictly and frozen."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.shared.columns import CHANGE_COLUMNS
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import SuiteError

_EXAMPLE = """expectations:
  - type: expect_column_values_to_not_be_null
    kwargs: {{column: {column}}}
    why: a row has a key
"""


class Rule(BaseModel):
    """One expectation, in Great Expectations' own words."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    type: Annotated[str, Field(min_length=1)]
    """The expectation's type, e.g. `expect_column_values_to_not_be_null`."""
    kwargs: dict[str, Any] = {}
    """Its arguments, as Great Expectations names them."""
    why: Annotated[str, Field(min_length=1)]
    """The reason in plain words, shown beside every quarantined row."""
    severity: Literal["row", "batch"] = "row"
    """Whether a failure quarantines rows or rejects the whole batch."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the arguments name; empty for a rule about the whole table."""
        columns: list[str] = []
        for name in ("column", "column_A", "column_B", "column_list"):
            value = self.kwargs.get(name, [])
            columns += [value] if isinstance(value, str) else value
        return tuple(columns)

    @property
    def label(self) -> str:
        """The rule in one line, as manifests and messages name it."""
        return f"{', '.join(self.columns) or 'table'} {self.type}: {self.why}"


class _File(BaseModel):
    """The text of a suite file."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    expectations: Annotated[list[Rule], Field(min_length=1)]
    max_quarantined_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    tolerated_rows: Annotated[int, Field(ge=0)] = 20


@dataclass(frozen=True)
class Suite:
    """What must hold for the changes of one table."""

    path: Path
    table: str
    key: tuple[str, ...]
    rules: tuple[Rule, ...]
    max_quarantined_share: float
    """A batch with a larger share of unsound rows is rejected."""
    tolerated_rows: int
    """So many unsound rows never reject a batch, whatever their share."""

    def of(self, severity: Literal["row", "batch"]) -> tuple[Rule, ...]:
        """The rules of one severity, in the file's order."""
        return tuple(rule for rule in self.rules if rule.severity == severity)

    def spares_deletes(self, rule: Rule) -> bool:
        """Whether the rule is about values: a delete's old values no longer matter."""
        return not (rule.columns and set(rule.columns) <= set(self.key))

    def fault(self, rule: Rule, place: str, message: str) -> SuiteError:
        """The error that names the file, the rule and the place inside it."""
        number = next(n for n, known in enumerate(self.rules) if known is rule)
        return SuiteError(f"{self.path}: expectations[{number}].{place}: {message}")


def load_suite(expectations: Path, shop: Shop, table: str) -> Suite:
    """Read and check a table's suite; types and arguments are checked when it is first applied.

    Raises:
        SuiteError: the file is missing, unreadable or wrong, or names an unknown column.
    """
    path = expectations / shop.shop / f"{table}.yaml"
    if table not in shop.tables:
        raise SuiteError(unknown(table, f"a table of shop {shop.shop!r}", shop.tables))
    declared = shop.tables[table]
    if not path.is_file():
        raise SuiteError(
            f"table {table!r} has no suite: create {path}, for a start with\n"
            + _EXAMPLE.format(column=declared.key[0])
        )
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(text, dict):
        raise SuiteError(f"{path}: expected a mapping; accepted keys: {_keys(_File)}")
    try:
        file = _File.model_validate(text)
    except ValidationError as error:
        raise SuiteError(_explain(path, error)) from None
    suite = Suite(
        path, table, tuple(declared.key), tuple(file.expectations),
        file.max_quarantined_share, file.tolerated_rows,
    )  # fmt: skip
    _check_columns(suite, (*declared.stored_columns(), *CHANGE_COLUMNS))
    return suite


def unknown(name: object, what: str, accepted: Iterable[str]) -> str:
    """A message: the name is not known, what may have been meant, what is accepted."""
    accepted = list(accepted)
    near = difflib.get_close_matches(str(name), accepted, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{name!r} is not {what}{hint} Accepted: {', '.join(accepted)}"


def _check_columns(suite: Suite, known: tuple[str, ...]) -> None:
    for rule in suite.rules:
        for argument in ("column", "column_A", "column_B", "column_list"):
            given = rule.kwargs.get(argument)
            for name in given if isinstance(given, list) else [given]:
                if argument in rule.kwargs and name not in known:
                    message = unknown(name, f"a stored column of {suite.table!r}", known)
                    raise suite.fault(rule, f"kwargs.{argument}", message)


def _explain(path: Path, error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False):
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]
        ).lstrip(".")
        if fault["type"] == "extra_forbidden":
            keys = _keys(_File if len(fault["loc"]) < 2 else Rule)
            message = f"unknown key; accepted here: {keys}"
        elif fault["type"] == "missing":
            message = "is required"
        else:
            message = f"{fault['msg']} (got {fault['input']!r})"
        faults.append(f"{path}: {place}: {message}")
    return "\n".join(faults)


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)
