"""Columns that come, go, change their name or type: an error, or on record; never a silent null."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import extract
from pipelines.inspect import freshness, history
from pipelines.shared.errors import SchemaDrift
from pipelines.shared.run import Installation
from tests.extract.drifting import MODES, Goods, goods

pytestmark = pytest.mark.services


@pytest.fixture(params=MODES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Goods]:
    """Two columns, two rows, one extraction of the first; then the second row is written."""
    with goods(request, tmp_path) as made:
        made.create("name varchar(40), amount integer")
        made.declare({"name": "string", "amount": "int32"})
        made.put(1, name="one", amount=1)
        made.install()
        assert made.take()["id"].to_pylist() == [1]
        assert "migrated" not in made.manifest.details
        made.put(2, name="two", amount=2)
        yield made


def redeclare(shop: Goods, columns: dict[str, str] | None = None, **options: object) -> None:
    shop.declare(columns or {"name": "string", "amount": "int32"}, **options)


def test_a_new_column_is_refused_unless_something_else_is_said(shop: Goods) -> None:
    shop.alter("ADD COLUMN extra integer")
    with pytest.raises(
        SchemaDrift, match=r"goods\.extra is new; add it .* `ignore` \(found as int"
    ):
        shop.take()
    redeclare(shop, ignore=["extra"])
    assert shop.take()["id"].to_pylist() == [2]


def test_a_new_column_may_be_ignored(shop: Goods) -> None:
    redeclare(shop, new_columns="ignore")
    shop.alter("ADD COLUMN extra integer")
    shop.put(3, name="three", extra=3)
    taken = shop.take()
    assert taken["id"].to_pylist() == [2, 3]
    assert "extra" not in taken.column_names


def test_a_new_column_may_be_taken_with_its_type_on_record(shop: Goods) -> None:
    redeclare(shop, new_columns="take")
    shop.alter("ADD COLUMN extra integer")
    shop.put(3, name="three", extra=3)
    taken = shop.take_after_install()
    last = {row["id"]: row["extra"] for row in taken.to_pylist()}
    assert (last[2], last[3]) == (None, 3)
    kind = "int64" if shop.dialect == "sqlite" else "int32"
    assert shop.manifest.details["migrated"] == {"extra": {"how": "taken", "type": kind}}
    assert shop.manifest.details["taken"] == {"extra": kind}
    whole = shop.run.lake.read("changes/goods")
    assert {row["id"]: row["extra"] for row in whole.to_pylist()} == {1: None, **last}
    shop.put(4, extra=4)
    assert shop.take()["extra"].to_pylist() == [4]
    assert "migrated" not in shop.manifest.details
    installation = Installation(shop.settings, shop.shop)
    (state,) = (each for each in freshness.sources(installation) if each.source == "goods")
    assert state.fault == ""
    with history.rows_at(installation, "goods", shop.ends[-1]) as rows:
        assert rows.read_all()["extra"].to_pylist() == [None, None, 3, 4]
    redeclare(shop, {"name": "string", "amount": "int32", "extra": kind}, new_columns="take")
    assert shop.shop.with_columns({"goods": {"extra": "string"}}).tables["goods"].auto_added == {}
    redeclare(shop, new_columns="take")
    _a_taken_column_that_goes_is_named(shop)


def _a_taken_column_that_goes_is_named(shop: Goods) -> None:
    shop.drop("extra")
    with pytest.raises(SchemaDrift, match=r"goods\.extra is taken, but .*under `ignore`"):
        shop.take()


def test_a_partition_from_before_a_new_column_is_restored_as_it_was(shop: Goods) -> None:
    if shop.capture in ("wal", "cursor"):
        pytest.skip("a log is given up once it is read; a cursor compares rows by their columns")
    shop.take()
    before, interval = shop.manifest, shop.run.interval
    shop.alter("ADD COLUMN extra integer")
    redeclare(shop, new_columns="take")
    shop.put(3, extra=3)
    shop.take_after_install()
    run = shop.run
    run.lake.remove("changes/goods", [interval.key])
    shop.ends = [interval.start, interval.end]
    extract.run(shop.run, "goods")
    assert run.lake.read("changes/goods", [interval])["id"].to_pylist() == [2]
    assert shop.manifest == before


def test_a_column_declared_later_is_on_record_and_null_before(shop: Goods) -> None:
    redeclare(shop, ignore=["extra"])
    shop.alter("ADD COLUMN extra integer")
    shop.put(3, extra=3)
    assert shop.take()["id"].to_pylist() == [2, 3]
    redeclare(shop, {"name": "string", "amount": "int32", "extra": "int32"})
    shop.put(4, extra=4)
    taken = shop.take_after_install()
    assert shop.manifest.details["migrated"] == {"extra": {"how": "declared", "type": "int32"}}
    assert {row["id"]: row["extra"] for row in taken.to_pylist()}[4] == 4
    redeclare(shop, ignore=["extra"])
    shop.put(5, extra=5)
    shop.take_after_install()
    assert shop.manifest.details["migrated"] == {"extra": {"how": "left out"}}


def test_a_dropped_column_is_named(shop: Goods) -> None:
    shop.drop("amount")
    with pytest.raises(
        SchemaDrift, match=r"goods\.amount is declared, but .*no such column.*int32"
    ):
        shop.take()


def test_a_renamed_column_is_named_and_never_becomes_null(shop: Goods) -> None:
    shop.alter("RENAME COLUMN amount TO amounts")
    redeclare(shop, new_columns="ignore")
    with pytest.raises(SchemaDrift, match=r"goods\.amount is .*is it now 'amounts'"):
        shop.take()
    redeclare(shop, {"name": "string", "amounts": "int32"}, new_columns="ignore")
    shop.put(3, amounts=3)
    if shop.capture in ("wal", "binlog"):
        with pytest.raises(SchemaDrift, match=r"goods\.amounts is declared"):
            shop.take()
        return
    taken = shop.take_after_install()
    last = {row["id"]: row["amounts"] for row in taken.to_pylist()}
    assert (last[2], last[3]) == (2, 3)


def test_a_column_of_another_type_is_named(shop: Goods) -> None:
    if shop.dialect == "sqlite":
        shop.drop("amount")
        shop.alter("ADD COLUMN amount text")
    elif shop.dialect == "mysql":
        shop.alter("MODIFY COLUMN amount text")
    else:
        shop.alter("ALTER COLUMN amount TYPE text")
    with pytest.raises(SchemaDrift, match=r"goods\.amount is declared int32, but .* has text"):
        shop.take()
    redeclare(shop, {"name": "string", "amount": "string"})
    with pytest.raises(SchemaDrift, match=r"goods\.amount is int32 in the lake"):
        shop.take_after_install() if shop.capture != "trigger" else shop.install() or shop.take()


def test_a_log_from_when_a_column_had_another_type_is_refused(shop: Goods) -> None:
    if shop.capture not in ("wal", "binlog"):
        pytest.skip("reads no log")
    change = {"wal": "ALTER COLUMN amount TYPE {0} USING amount::{0}",
              "binlog": "MODIFY COLUMN amount {0}"}[shop.capture]  # fmt: skip
    shop.alter(change.format("text"))
    shop.put(3, amount="3")
    shop.alter(change.format("integer"))
    with pytest.raises(SchemaDrift, match=r"goods.*amount is declared int32, but .*text"):
        shop.take()
