"""The stage: laws 1 and 2, what is quarantined and why, and what stops it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import validate
from pipelines.shared.columns import COMMITTED_AT, OP, REASONS
from pipelines.shared.errors import (
    BatchRejected,
    ChangedMeanwhile,
    CorruptPartition,
    NotExtracted,
)
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import Ledger, Manifest
from pipelines.shared.run import Run
from pipelines.validate import stage
from tests.validate.partitions import NEXT, NOON, WEEK, extract, line, partition, stored

LATER = NOON + timedelta(days=100)
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"household_id": None}, "household_id: is missing"),
    ({"product_id": None}, "product_id: is missing"),
    ({"order_id": None}, "order_id: is missing"),
    ({"quantity": -3}, "quantity: -3 is below 0"),
    ({"sales_value": "1000001.99"}, "sales_value: 1000001.99 is above 10000"),
    ({"ordered_at": LATER}, "_committed_at, ordered_at: 2017-01-04 12:00:00Z is before 2017-04-14"),
    ({"ordered_at": datetime(1970, 1, 1, tzinfo=UTC)},
     "ordered_at: 1970-01-01 00:00:00Z is before 2000-01-01T00:00:00Z"),
]  # fmt: skip


def lines(run: Run, rows: list[dict[str, Any]]) -> pa.Table:
    numbered = [{"line_no": place} | row for place, row in enumerate(rows)]
    return partition(run, "order_lines", [line(**row) for row in numbered])


def test_broken_rows_are_quarantined_each_with_its_reason(run: Run):
    sound: list[dict[str, Any]] = [{}, {"quantity": 0}, {"sales_value": "0.00"}, {}]
    extract(run, "order_lines", WEEK, lines(run, [*sound, *(row for row, _ in BROKEN), {}]))
    done = validate.run(run, "order_lines")
    assert (done.extracted, done.valid, done.quarantined) == (12, 5, 7)
    assert stored(run, "valid/order_lines").column("line_no").to_pylist() == [0, 1, 2, 3, 11]
    quarantined = stored(run, "quarantine/order_lines")
    assert quarantined.column("line_no").to_pylist() == [4, 5, 6, 7, 8, 9, 10]
    for reason, (_, expected) in zip(quarantined.column(REASONS).to_pylist(), BROKEN, strict=True):
        assert reason.startswith(expected)
        assert " | " not in reason
        assert re.search(r" \(order_lines: .+; expect_\w+\)$", reason), "table, why, rule"


def test_a_row_with_two_faults_has_both_reasons(run: Run):
    extract(run, "order_lines", WEEK, lines(run, [{"quantity": -1, "product_id": None}, {}]))
    validate.run(run, "order_lines")
    reasons = stored(run, "quarantine/order_lines").column(REASONS)[0].as_py().split(" | ")
    assert [each.partition(" (")[0] for each in reasons] == [
        "product_id: is missing",
        "quantity: -1 is below 0",
    ]


def test_a_delete_needs_its_key_and_nothing_else(run: Run):
    rows = [{**row, OP: "delete"} for row, _ in BROKEN] + [{"quantity": -1}, {}]
    extract(run, "order_lines", WEEK, lines(run, rows))
    validate.run(run, "order_lines")
    quarantined = stored(run, "quarantine/order_lines")
    assert quarantined.column("line_no").to_pylist() == [2, 7], (
        "the keyless delete, the broken insert"
    )


def test_duplicates_are_counted_once_and_the_first_stays(run: Run):
    rows = [line(), line(), line(quantity=2), line(line_no=2, quantity=-1)]
    extract(run, "order_lines", WEEK, partition(run, "order_lines", [*rows, rows[3]]))
    done = validate.run(run, "order_lines")
    assert (done.valid, done.quarantined, done.duplicates) == (2, 1, 2)
    assert stored(run, "valid/order_lines").column("_position").to_pylist() == [0, 2]


def test_an_empty_interval_needs_no_great_expectations(run: Run):
    extract(run, "order_lines", WEEK, partition(run, "order_lines", []))
    script = (
        "import sys\nfrom pipelines import validate\nfrom pipelines.shared.run import Run\n"
        "from pipelines.shared.settings import Settings\n"
        "from pipelines.shared.intervals import Interval\n"
        f"settings = Settings(lake={run.settings.lake!r}, mlflow_uri='',"
        f" ledger_url={run.settings.ledger_url.get_secret_value()!r})\n"
        "run = Run.of(settings, 'completejourney', Interval.of('2017-01-02', '2017-01-09'))\n"
        "assert validate.run(run, 'order_lines').extracted == 0\n"
        "assert 'great_expectations' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert run.ledger.manifest("validate", "order_lines", WEEK) is not None
    plain = stored(run, "changes/order_lines").schema
    assert stored(run, "valid/order_lines").schema == plain
    assert stored(run, "quarantine/order_lines").schema == plain.append(
        pa.field(REASONS, pa.string())
    )


def test_the_schema_does_not_depend_on_the_rows(run: Run):
    extract(run, "order_lines", WEEK, lines(run, [{}, {"quantity": -1}]))
    validate.run(run, "order_lines")
    plain = stored(run, "changes/order_lines").schema
    assert stored(run, "valid/order_lines").schema == plain
    assert stored(run, "quarantine/order_lines").schema.names == [*plain.names, REASONS]


def test_a_rerun_is_the_same_run(run: Run):
    extract(run, "order_lines", WEEK, lines(run, [row for row, _ in BROKEN]))
    first = validate.run(run, "order_lines")
    page = Path(run.settings.lake, "completejourney/validation/order_lines", f"{WEEK.key}.html")
    before = (page.read_bytes(), run.ledger.manifests("validate"))
    tables = [stored(run, f"{side}/order_lines") for side in ("valid", "quarantine")]
    assert validate.run(run, "order_lines") == first
    assert (page.read_bytes(), run.ledger.manifests("validate")) == before
    again = [stored(run, f"{side}/order_lines") for side in ("valid", "quarantine")]
    assert again == tables


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)> $name {{ 7 * 7 }} [bold]",
    "a" * 1_000_000,
)


def test_a_page_shows_values_as_text_and_loads_nothing(run: Run, suites: Path):
    (suites / "products.yaml").write_text(
        "max_quarantined_share: 1.0\nexpectations:\n"
        "  - {type: expect_column_values_to_be_in_set, why: none is, "
        "kwargs: {column: brand, value_set: [none of them]}}\n"
    )
    rows = [{"product_id": place, "brand": brand} for place, brand in enumerate(HOSTILE)]
    extract(run, "products", WEEK, partition(run, "products", rows))
    validate.run(run, "products")
    page = run.lake.local_root / run.ledger.manifests("validate")[0].details["page"]
    text = page.read_text(encoding="utf-8")
    assert len(text) < 200_000
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;img src=x onerror=alert(2)&gt; $name {{ 7 * 7 }} [bold]" in text
    assert "<script" not in text
    assert "<img src=x" not in text
    assert not re.search(r'(src|<link[^>]*href)="?(https?:)?//', text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("dies_before", ["valid", "quarantine", "manifest"])
def test_a_rerun_heals_a_kill(dies_before: str, run: Run, monkeypatch: pytest.MonkeyPatch):
    extract(run, "order_lines", WEEK, lines(run, [{}, {"quantity": -1}]))
    replace_partition, record = Lake.replace, Ledger.record

    def die(self: Any, *given: Any) -> Any:
        is_manifest = isinstance(given[0], Manifest)
        if str(given[0]).startswith(dies_before) or (dies_before == "manifest" and is_manifest):
            raise KeyboardInterrupt
        return (record if is_manifest else replace_partition)(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "replace", die)
        patch.setattr(Ledger, "record", die)
        with pytest.raises(KeyboardInterrupt):
            validate.run(run, "order_lines")
    assert run.ledger.manifests("validate") == []
    validate.run(run, "order_lines")
    assert stored(run, "valid/order_lines").num_rows == 1
    assert stored(run, "quarantine/order_lines").num_rows == 1
    assert len(run.ledger.manifests("validate")) == 1


def test_the_order_of_the_files_means_nothing(run: Run):
    changes = lines(run, [{}, {"quantity": -1}, {}, {}])
    extract(run, "order_lines", WEEK, changes)
    validate.run(run, "order_lines")
    first = run.ledger.manifest("validate", "order_lines", WEEK)
    run.lake.replace("changes/order_lines", WEEK, changes.take([3, 1, 0, 2]))
    validate.run(run, "order_lines")
    assert run.ledger.manifest("validate", "order_lines", WEEK) == first


def test_older_partitions_that_wait_are_validated_too(run: Run):
    before = Interval(WEEK.start - timedelta(days=7), WEEK.start)
    for step in (before, WEEK, NEXT):
        extract(run, "order_lines", step, lines(run, [{}]))
    assert validate.run(run, "order_lines").steps == (before.key, WEEK.key)
    assert validate.run(run, "order_lines").steps == (WEEK.key,)
    two = Run(run.settings, run.shop, Interval(WEEK.start, NEXT.end))
    assert validate.run(two, "order_lines").steps == (WEEK.key, NEXT.key)


def test_a_run_before_extraction_says_so(run: Run):
    with pytest.raises(NotExtracted, match="run the extract stage"):
        validate.run(run, "order_lines")


def test_rows_that_extraction_did_not_count_are_refused(run: Run):
    extract(run, "order_lines", WEEK, lines(run, [{}]))
    run.lake.replace("changes/order_lines", WEEK, lines(run, [{}, {}]))
    with pytest.raises(CorruptPartition, match="holds 2 rows, but 1 were extracted"):
        validate.run(run, "order_lines")


def test_a_lost_table_is_named(run: Run):
    run.ledger.record(Manifest("extract", "orders", WEEK, {"rows": 0}, ""))
    with pytest.raises(CorruptPartition, match="is gone"):
        validate.run(run, "orders")


def test_a_rejected_batch_leaves_nothing_half_written(run: Run):
    rows: list[dict[str, Any]] = [{"quantity": -1}] * 30 + [{"product_id": None}] * 2 + [{}] * 68
    extract(run, "order_lines", WEEK, lines(run, rows))
    with pytest.raises(BatchRejected) as error:
        validate.run(run, "order_lines")
    message = str(error.value)
    assert "32 of 100 rows are unsound (32.0%, allowed 5.0%): 30 rows break `quantity" in message
    assert "order_lines.yaml" in message
    assert "clear this task" in message
    assert not run.lake.exists("valid/order_lines")
    assert not run.lake.exists("quarantine/order_lines")
    assert run.ledger.manifests("validate") == []
    assert list(Path(run.settings.lake).glob("*/validation/order_lines/*.html")), "for the reader"


def test_a_rejected_batch_goes_on_when_its_suite_is_mended(run: Run, suites: Path):
    original = Path(__file__).parents[2] / "expectations/completejourney/order_lines.yaml"
    suite = suites / "order_lines.yaml"
    suite.write_text(original.read_text())
    extract(run, "order_lines", WEEK, lines(run, [{"quantity": -1}] * 30))
    with pytest.raises(BatchRejected):
        validate.run(run, "order_lines")
    suite.write_text("max_quarantined_share: 1.0\n" + original.read_text())
    assert validate.run(run, "order_lines").quarantined == 30


def test_few_unsound_rows_do_not_stop_a_small_batch(run: Run):
    extract(run, "order_lines", WEEK, lines(run, [{"quantity": -1}] * 20 + [{}]))
    assert validate.run(run, "order_lines").quarantined == 20


BATCH = """
expectations:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: order_id}, why: a key}
  - {type: expect_column_values_to_be_between, kwargs: {column: quantity, min_value: 0}, why: sold}
  - type: expect_column_mean_to_be_between
    kwargs: {column: quantity, min_value: 1, max_value: 5}
    why: shoppers buy a few pieces
    severity: batch
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 2}
    why: a week has sales
    severity: batch
  - type: expect_column_values_to_be_in_set
    kwargs: {column: store_id, value_set: [300], mostly: 0.5}
    why: most sales are in the main store
    severity: batch
"""


@pytest.mark.parametrize(
    ("rows", "broken"),
    [
        ([{"quantity": 2}, {"quantity": 4, "store_id": 9}], None),
        # Neither the unsound row nor the delete counts for the mean.
        ([{"quantity": 2}, {"quantity": 4}, {"quantity": -900}, {"quantity": 900, OP: "delete"}],
         None),
        ([{"quantity": 9}, {"quantity": 8}], "quantity expect_column_mean_to_be_between"),
        ([{"quantity": 2}], "table expect_table_row_count_to_be_between"),
        ([{"store_id": 1}, {"store_id": 2}, {}], "store_id expect_column_values_to_be_in_set"),
    ],
)  # fmt: skip
def test_rules_on_the_batch(rows: list[dict[str, Any]], broken: str | None, run: Run, suites: Path):
    (suites / "order_lines.yaml").write_text(BATCH)
    extract(run, "order_lines", WEEK, lines(run, rows))
    if broken is None:
        validate.run(run, "order_lines")
        manifest = run.ledger.manifest("validate", "order_lines", WEEK)
        assert manifest is not None
        assert len(manifest.details["batch"]) == 3
        return
    with pytest.raises(BatchRejected, match=broken):
        validate.run(run, "order_lines")
    assert not run.lake.exists("valid/order_lines")


def test_the_manifest_counts_the_rows_of_each_reason(run: Run):
    extract(run, "order_lines", WEEK, lines(run, [{"quantity": -1}, {"quantity": -2}, {}]))
    done = validate.run(run, "order_lines")
    manifest = run.ledger.manifest("validate", "order_lines", WEEK)
    assert manifest is not None
    assert list(manifest.details["reasons"].values()) == [2]
    assert json.loads(json.dumps(done.as_dict()))["table"] == "order_lines"


def test_nothing_leaves_the_machine(run: Run, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    extract(run, "order_lines", WEEK, lines(run, [{"quantity": -1}]))
    assert validate.run(run, "order_lines").quarantined == 1


def test_big_ids_stay_exact(run: Run, suites: Path):
    edge = 2**53
    (suites / "order_lines.yaml").write_text(
        "expectations:\n  - {type: expect_column_values_to_be_in_set, why: known,"
        f" kwargs: {{column: product_id, value_set: [{edge}]}}}}\n"
    )
    rows: list[dict[str, Any]] = [{"product_id": p} for p in (edge, edge + 1, None)]
    extract(run, "order_lines", WEEK, lines(run, rows))
    validate.run(run, "order_lines")
    quarantined = stored(run, "quarantine/order_lines")
    assert quarantined.column("product_id").to_pylist() == [edge + 1]
    [reason] = quarantined.column(REASONS).to_pylist()
    assert reason.startswith(f"product_id: {edge + 1} fails to be in set")


def test_commit_time_equal_to_the_order_time_is_sound(run: Run):
    extract(run, "order_lines", WEEK, lines(run, [{"ordered_at": NOON}]))
    assert validate.run(run, "order_lines").valid == 1
    late = lines(run, [{}])
    moment = pa.array([NOON - timedelta(microseconds=1)], pa.timestamp("us", tz="UTC"))
    late = late.set_column(late.schema.get_field_index(COMMITTED_AT), COMMITTED_AT, moment)
    extract(replace(run, interval=NEXT), "order_lines", NEXT, late)
    assert validate.run(replace(run, interval=NEXT), "order_lines").quarantined == 1


def test_a_partition_of_nothing_but_deletes(run: Run):
    rows: list[dict[str, Any]] = [{OP: "delete", "quantity": -1}, {OP: "delete", "order_id": None}]
    extract(run, "order_lines", WEEK, lines(run, rows))
    done = validate.run(run, "order_lines")
    assert (done.valid, done.quarantined) == (1, 1)


def test_a_row_that_breaks_a_rule_written_twice_has_both_reasons(run: Run, suites: Path):
    rule = (
        "  - {type: expect_column_values_to_not_be_null, kwargs: {column: order_id}, why: a key}\n"
    )
    (suites / "order_lines.yaml").write_text("expectations:\n" + rule * 2)
    extract(run, "order_lines", WEEK, lines(run, [{"order_id": None}]))
    assert validate.run(run, "order_lines").quarantined == 1
    [reason] = stored(run, "quarantine/order_lines").column(REASONS).to_pylist()
    one, other = reason.split(" | ")
    assert one == other


@pytest.mark.parametrize(
    ("rule", "row", "reason"),
    [
        ("expect_column_values_to_be_in_set, kwargs: {column: brand, value_set: [Own, Other]}",
         {"brand": "own"}, "brand: 'own' fails to be in set ['Own', 'Other'] ("),
        ("expect_column_values_to_match_regex, kwargs: {column: brand, regex: '^[A-Z]'}",
         {"brand": "x" * 99}, f"brand: '{'x' * 60}' fails to match regex ^[A-Z] ("),
        ("expect_column_values_to_be_between, kwargs: {column: price, min_value: 0, max_value: 9,"
         " strict_min: true}", {"price": Decimal("0.00")}, "price: 0.00 is below or equal to 0 ("),
        ("expect_column_values_to_be_between, kwargs: {column: price, max_value: 9}",
         {"price": Decimal("9.01")}, "price: 9.01 is above 9 ("),
        ("expect_column_pair_values_a_to_be_greater_than_b, kwargs: {column_A: product_id,"
         " column_B: manufacturer_id, ignore_row_if: neither}",
         {"product_id": 1, "manufacturer_id": None},
         "product_id, manufacturer_id: 1 is not above (missing) ("),
        ("expect_compound_columns_to_be_unique, kwargs: {column_list: [brand, price],"
         " ignore_row_if: never}", {"brand": "a"},
         "brand, price: 'a', (missing) fails to be unique ("),
    ],
)  # fmt: skip
def test_reasons_in_words(rule: str, row: dict[str, Any], reason: str, run: Run, suites: Path):
    (suites / "products.yaml").write_text(f"expectations:\n  - {{type: {rule}, why: so}}\n")
    rows = [row, row | {"product_id": 2}] if "unique" in rule else [row]
    extract(run, "products", WEEK, partition(run, "products", rows))
    validate.run(run, "products")
    quarantined = stored(run, "quarantine/products").column(REASONS).to_pylist()
    assert len(quarantined) == len(rows)
    assert quarantined[0].startswith(reason)
    assert quarantined[0].endswith(f"(products: so; {rule.partition(',')[0]})")


def test_changes_that_were_rewritten_meanwhile_are_not_written(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    extract(run, "order_lines", WEEK, partition(run, "order_lines", [line()]))
    written = stage.write_data_docs

    def forget(*arguments: Any) -> None:
        written(*arguments)
        extract(run, "order_lines", WEEK, partition(run, "order_lines", []))

    monkeypatch.setattr(stage, "write_data_docs", forget)
    with pytest.raises(ChangedMeanwhile, match="run validate again"):
        validate.run(run, "order_lines")
    assert not run.lake.exists("valid/order_lines")
    monkeypatch.undo()
    assert validate.run(run, "order_lines").extracted == 0
