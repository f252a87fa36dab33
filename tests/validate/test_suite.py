"""Suites as data: every bundled one is readable, every wrong one gives one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines import validate
from pipelines.shared.declaration import load_shop
from pipelines.shared.errors import SuiteError
from pipelines.shared.run import Run
from pipelines.shared.settings import PROJECT
from pipelines.validate.expectations import apply
from pipelines.validate.suite import load_suite
from tests.validate.partitions import WEEK, extract, line, partition

SHOPS = {
    "completejourney": (PROJECT / "shops", PROJECT / "expectations"),
    "tiny": (PROJECT / "tests/declared", PROJECT / "tests/declared/expectations"),
}
TABLES = [
    (shop, table) for shop, (shops, _) in SHOPS.items() for table in load_shop(shop, shops).tables
]
NOT_NULL = "{type: expect_column_values_to_not_be_null, kwargs: {column: order_id}, why: a key}"


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_every_table_has_a_suite_that_applies(name: str, table: str, run: Run):
    shops, expectations = SHOPS[name]
    shop = load_shop(name, shops)
    suite = load_suite(expectations, shop, table)
    assert set(suite.key) <= {column for rule in suite.rules for column in rule.columns}
    changes = partition(Run(run.settings, shop, WEEK), table, [{}])
    results = apply(suite, suite.of("row"), changes).rules
    assert {each.rule.type for each in results if not each.passed} == {
        "expect_column_values_to_not_be_null"
    }, "a row of nothing but nulls breaks exactly the rules on missing values"


def test_a_missing_suite_names_the_file_and_a_start(run: Run, suites: Path):
    extract(run, "orders", WEEK, partition(run, "orders", []))
    with pytest.raises(SuiteError) as error:
        validate.run(run, "orders")
    path, _, start = str(error.value).partition(" for a start with\n")
    assert str(suites / "orders.yaml") in path
    (suites / "orders.yaml").write_text(start)
    assert validate.run(run, "orders").extracted == 0


@pytest.mark.parametrize(
    ("rule", "place", "accepted"),
    [
        ("{type: expect_colum_values_to_be_null, kwargs: {column: quantity}, why: x}",
         "expectations[1].type", "did you mean 'expect_column_values_to_be_null'?"),
        ("{type: expect_column_values_to_be_null, kwargs: {column: quantty}, why: x}",
         "expectations[1].kwargs.column", "did you mean 'quantity'?"),
        ("{type: expect_column_values_to_be_between, kwargs: {column: quantity, min: 1}, why: x}",
         "expectations[1].kwargs.min", "min_value"),
        ("{type: expect_column_values_to_be_between, kwargs: {column: quantity, min_value: many},"
         " why: x}", "expectations[1].kwargs", "min_value"),
        ("{type: expect_column_values_to_be_between, kwargs: {min_value: 0}, why: x}",
         "expectations[1].kwargs", "column"),
        ("{type: expect_column_mean_to_be_between, kwargs: {column: quantity, min_value: 0},"
         " why: x}", "expectations[1].severity", "batch"),
        ("{type: expect_column_values_to_not_be_null, kwargs: {column: quantity, mostly: 0.9},"
         " why: x}", "expectations[1].kwargs.mostly", "batch"),
        ("{type: expect_column_pair_values_to_be_equal, kwargs: {column_A: quantity,"
         " column_B: line_no}, why: x}", "expectations[1].kwargs.ignore_row_if", "neither"),
        ("{type: expect_column_values_to_be_between, kwargs: {column: ordered_at, min_value: 3},"
         " why: x}", "expectations[1]", "cannot be evaluated"),
        ("{type: expect_column_values_to_be_null, kwargs: {column: quantity}}",
         "expectations[1].why", "is required"),
        ("{type: expect_column_values_to_be_null, why: x, because: y}",
         "expectations[1].because", "severity"),
        ("{type: expect_column_values_to_be_null, why: x, severity: bad}",
         "expectations[1].severity", "'row' or 'batch'"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_one_clear_error(
    rule: str, place: str, accepted: str, run: Run, suites: Path
):
    path = suites / "order_lines.yaml"
    path.write_text(f"expectations:\n  - {NOT_NULL}\n  - {rule}\n")
    extract(run, "order_lines", WEEK, partition(run, "order_lines", [line()]))
    with pytest.raises(SuiteError) as error:
        validate.run(run, "order_lines")
    message = str(error.value)
    assert message.startswith(f"{path}: {place}")
    assert accepted in message
    assert not run.lake.exists("valid/order_lines")


@pytest.mark.parametrize("text", ["[1, 2", "- a", "expectations: []", "expectation: []", "a: \x00"])
def test_an_unreadable_suite_is_one_clear_error(text: str, run: Run, suites: Path):
    (suites / "orders.yaml").write_text(text)
    with pytest.raises(SuiteError, match=r"orders\.yaml"):
        load_suite(suites.parent, run.shop, "orders")


def test_an_unknown_table(run: Run):
    with pytest.raises(SuiteError, match=r"'order_line' is not a table .* mean 'order_lines'"):
        validate.run(run, "order_line")


def test_no_suite_names_a_dropped_personal_column(run: Run, suites: Path):
    rule = NOT_NULL.replace("order_id", "income")
    (suites / "households.yaml").write_text(yaml.dump({"expectations": [yaml.safe_load(rule)]}))
    with pytest.raises(SuiteError, match="'income' is not a stored column"):
        load_suite(suites.parent, run.shop, "households")
