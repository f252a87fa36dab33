"""The lake is what the ledger says, or every departure is named, with a way out that works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from pydantic import SecretStr

from benchmarks.servers.postgres import connect
from pipelines import features, maintain, validate
from pipelines.extract import install
from pipelines.extract import run as extract_from_shop
from pipelines.shared.errors import CorruptPartition, DeclarationError
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.run import Installation
from pipelines.shared.settings import Settings
from tests.extract import postgres_shop
from tests.features.small_logs import Grocery
from tests.maintain.stocked import TABLE, WEEKS, empty, stock

PROJECT = Path(__file__).parents[2]


def files(installation: Installation, table: str, week: Interval) -> list[Path]:
    """The data files of a partition."""
    opened = DeltaTable(installation.lake.uri(table))
    uris = opened.file_uris([("interval_start", "=", week.key)])
    return [Path(uri.removeprefix("file://")) for uri in uris]


def partition(installation: Installation, table: str, week: Interval) -> pa.Table:
    return installation.lake.read(table, [week]).drop_columns(["interval_start"])


def test_a_sound_lake_has_no_faults(stocked: Installation) -> None:
    report = maintain.verify(stocked)
    assert report.faults == ()
    assert (report.checked, report.expired) == (8, 0)
    assert report.rows == stocked.lake.read(f"changes/{TABLE}").num_rows
    assert report.required() is report
    quarantined = [each.counts["quarantined"] for each in stocked.ledger.manifests("validate")]
    assert quarantined == [1, 0, 0, 0]


def test_an_interval_whose_changes_a_later_one_took_is_sound(tmp_path: Path) -> None:
    installation = empty(tmp_path)
    stock(installation, [WEEKS[1], WEEKS[0]])
    first, second = installation.ledger.manifests("extract")
    assert (first.counts["rows"], "taken_by" in first.details) == (0, True)
    assert second.counts["rows"] > 0
    assert maintain.verify(installation).faults == ()


def _cut(installation: Installation, table: str) -> None:
    path = files(installation, table, WEEKS[1])[0]
    path.write_bytes(path.read_bytes()[:-100])


def _lose(installation: Installation, table: str) -> None:
    files(installation, table, WEEKS[1])[0].unlink()


def _empty(installation: Installation, table: str) -> None:
    installation.lake.remove(table, [WEEKS[1].key])


def _shorten(installation: Installation, table: str) -> None:
    rows = partition(installation, table, WEEKS[1])
    installation.lake.replace(table, WEEKS[1], rows.slice(1))


def _change(installation: Installation, table: str) -> None:
    rows = partition(installation, table, WEEKS[1])
    place = rows.column_names.index("kind")
    changed = pc.replace_substring(rows["kind"], "fresh", "fresH")
    installation.lake.replace(table, WEEKS[1], rows.set_column(place, "kind", changed))


def _double(installation: Installation, table: str) -> None:
    rows = installation.lake.read(table, [WEEKS[1]])
    write_deltalake(installation.lake.uri(table), rows.slice(0, 1), mode="append")


@pytest.mark.parametrize("table", [f"changes/{TABLE}", f"valid/{TABLE}"])
@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_cut, "cannot be read"),
        (_lose, "cannot be read"),
        (_empty, "is missing; on record are 14"),
        (_shorten, "holds 13 rows; on record are 14"),
        (_double, "holds 15 rows; on record are 14"),
        (_change, "the rows are not the ones recorded"),
    ],
)
def test_damage_is_named_with_its_way_out(
    stocked: Installation, table: str, damage: Callable[[Installation, str], None], what: str
) -> None:
    damage(stocked, table)
    (fault,) = maintain.verify(stocked).faults
    assert what in fault.what
    stage = "extract" if table.startswith("changes") else "validate"
    assert (fault.stage, fault.subject, fault.interval) == (stage, TABLE, WEEKS[1])
    assert "verify --repair --shop tiny --start 2017-01-09T00:00:00Z" in fault.way_out
    with pytest.raises(CorruptPartition, match=r"2017-01-09.*--repair"):
        maintain.verify(stocked).required()


def test_only_what_is_asked_for_is_verified(stocked: Installation) -> None:
    _lose(stocked, f"changes/{TABLE}")
    assert maintain.verify(stocked, WEEKS[0]).faults == ()
    assert len(maintain.verify(stocked, WEEKS[1], TABLE).faults) == 1
    assert maintain.verify(stocked, None, "users").checked == 0
    with pytest.raises(DeclarationError, match="'prices' is not declared"):
        maintain.verify(stocked, None, "prices")


def test_a_table_that_is_gone_and_a_damaged_log_are_faults(stocked: Installation) -> None:
    log = stocked.lake.local_root / "valid" / TABLE / "_delta_log"
    for entry in log.glob("*.json"):
        entry.write_text("{broken", encoding="utf-8")
    assert len(maintain.verify(stocked).faults) == 4
    for entry in log.glob("*.json"):
        entry.unlink()
    assert {fault.what for fault in maintain.verify(stocked).faults} == {
        f"valid/{TABLE} is gone with all its partitions"
    }


def test_accounts_that_do_not_add_up_are_a_fault(stocked: Installation) -> None:
    known = stocked.ledger.manifest("validate", TABLE, WEEKS[0])
    assert known is not None
    counts = dict(known.counts) | {"extracted": known.counts["extracted"] + 1}
    stocked.ledger.record(replace(known, counts=counts))
    faults = [fault.what for fault in maintain.verify(stocked).faults]
    assert faults[0].startswith(
        "14 were extracted, but 12 valid + 1 quarantined + 0 duplicates = 13"
    )
    assert "13 were extracted" in faults[1]


def test_a_column_added_later_changes_no_hash(stocked: Installation) -> None:
    for part in ("changes", "valid", "quarantine"):
        table = f"{part}/{TABLE}"
        rows = partition(stocked, table, WEEKS[3]).slice(0, 0)
        later = Interval.of("2017-01-30", "2017-02-06")
        wider = rows.append_column("discount", pa.nulls(0, pa.int64()))
        stocked.lake.replace(table, later, wider)
    assert "discount" in stocked.lake.dataset(f"valid/{TABLE}").schema.names
    assert maintain.verify(stocked).faults == ()


def test_validation_is_mended_from_the_changes(stocked: Installation) -> None:
    before = maintain.verify(stocked)
    _change(stocked, f"valid/{TABLE}")
    lines = maintain.repair(stocked, maintain.verify(stocked).faults)
    assert lines == [f"validate {TABLE} {WEEKS[1]}: rebuilt"]
    assert maintain.verify(stocked) == before


def test_groups_are_verified_and_mended(tmp_path: Path) -> None:
    shop = Grocery(tmp_path)
    for day in range(0, 20, 3):
        shop.line(day, 100 + day, 1, 1)
        shop.line(day, 100 + day, 1, 2 + day % 3)
    shop.validate(0, 1, 2)
    for week in range(3):
        features.run(shop.shelf.run(week))
    # The grocery's own manifests of validation are not whole: look at those of features alone.
    url = SecretStr(f"sqlite:///{tmp_path}/apart.db")
    whole = Installation(shop.shelf.settings, shop.shelf.shop)
    opened = replace(whole, settings=whole.settings.model_copy(update={"ledger_url": url}))
    for manifest in whole.ledger.manifests("features"):
        opened.ledger.record(manifest)
    assert maintain.verify(opened).faults == ()
    assert maintain.verify(opened).checked == 3
    week = shop.shelf.run(1).interval
    rows = partition(opened, "groups/basket", week)
    assert rows.num_rows > 0
    place = rows.column_names.index("label")
    turned = pc.cast(pc.subtract(pa.scalar(1, pa.int8()), rows["label"]), pa.int8())
    opened.lake.replace("groups/basket", week, rows.set_column(place, "label", turned))
    (fault,) = maintain.verify(opened).faults
    assert fault.interval == week
    maintain.repair(whole, [fault])
    assert maintain.verify(opened).faults == ()


@pytest.mark.services
def test_damaged_changes_are_taken_from_the_shop_again(postgres, tmp_path: Path) -> None:
    with postgres_shop.database(postgres) as url:
        installation = empty(tmp_path)
        settings = Settings(
            **installation.settings.model_dump() | {"connections": {"tiny": url}},
        )
        installation = replace(installation, settings=settings)
        shop = installation.shop
        with connect(url) as connection:
            connection.execute("INSERT INTO web.articles VALUES ('first', 'k', 'm', 1)")
        install(url, shop, utc("2017-01-01"))
        for day in range(2, 20):
            write = postgres_shop.PostgresTransaction(url, shop, f"2017-01-{day:02d}T12:00:00")
            write.insert(TABLE, {"sku": f"{day}", "kind": "fresh", "maker": "é", "amount": day})
            write.commit()
        for week in WEEKS[:2]:
            extract_from_shop(installation.run(week), TABLE)
            validate.run(installation.run(week), TABLE)
        before = installation.lake.read(f"changes/{TABLE}").sort_by("_position")
        for damage in (_cut, _lose, _empty, _shorten, _change, _double):
            damage(installation, f"changes/{TABLE}")
            faults = maintain.verify(installation).faults
            assert [each.stage for each in faults] == ["extract"]
            maintain.repair(installation, faults)
            assert maintain.verify(installation).faults == ()
            assert installation.lake.read(f"changes/{TABLE}").sort_by("_position") == before


def test_the_command_line_says_it_and_fails(tmp_path: Path) -> None:
    installation = empty(tmp_path)
    stock(installation, WEEKS[:2])
    settings = installation.settings
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("FRESHRANK_")},
        "FRESHRANK_LAKE": settings.lake,
        "FRESHRANK_LEDGER_URL": settings.ledger_url.get_secret_value(),
        "FRESHRANK_MLFLOW_URI": "http://127.0.0.1:9",
        "FRESHRANK_SHOP": "tiny",
        "FRESHRANK_SHOPS": str(settings.shops),
        "FRESHRANK_EXPECTATIONS": str(settings.expectations),
    }

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipelines", *arguments],
            cwd=PROJECT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    well = call("verify", "--json")
    assert well.returncode == 0, well.stderr
    assert json.loads(well.stdout) == {
        "shop": "tiny", "checked": 4, "rows": 13 + 14, "expired": 0,
        "faults": [],
    }  # fmt: skip
    assert "the lake is what the ledger says" in call("verify").stdout

    _empty(installation, f"valid/{TABLE}")
    bad = call("verify")
    assert bad.returncode == 1
    for expected in ("validate", "2017-01-09T00:00:00Z", "missing", "verify --repair"):
        assert expected in bad.stdout
    assert call("verify", "--end", "2017-01-09").returncode == 0
    (fault,) = json.loads(call("verify", "--json").stdout)["faults"]
    assert fault["start"] == "2017-01-09T00:00:00Z"
    assert call("verify", "--table", "prices").returncode == 1

    mended = call("verify", "--repair")
    assert mended.returncode == 0, mended.stderr
    assert "rebuilt" in mended.stderr

    kept = json.loads(call("maintain", "--json").stdout)
    assert kept == {
        "shop": "tiny", "expired": [], "compacted": 0, "merged": 0, "vacuumed": 0, "pruned": {},
    }  # fmt: skip

    shown = call("rows", TABLE, "--at", "2017-01-09", "--limit", "3")
    assert shown.returncode == 0, shown.stderr
    assert "sku 2" in shown.stdout
    assert "sku 7" not in shown.stdout
    for name in ("rows.csv", "rows.parquet"):
        path = tmp_path / name
        assert call("rows", TABLE, "--at", "2017-01-09", "--to", str(path)).returncode == 0
        assert path.stat().st_size > 0
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 1 + 9
    wrong = call("rows", TABLE, "--at", "2017-01-09", "--to", "rows.xls")
    assert wrong.returncode == 1
    assert ".parquet or .csv" in wrong.stderr
    late = call("rows", TABLE, "--at", "2018-01-01")
    assert late.returncode == 1
    assert "was extracted from 2017-01-02" in late.stderr
