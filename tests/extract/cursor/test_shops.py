"""What cursor capture asks of a shop: types that arrive exactly, rights, a fitting declaration."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import make_url

from benchmarks.servers.postgres import connect
from pipelines import extract
from pipelines.extract import source as extract_source
from pipelines.extract.cursor import adbc, snapshot
from pipelines.extract.cursor.source import CursorSource
from pipelines.shared.columns import MISFITS
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift, SettingsError, SourceUnavailable
from pipelines.shared.intervals import utc
from pipelines.shared.settings import Settings
from tests.extract.cursor.cursor_shop import GOODS, TIMED, shop_with
from tests.extract.postgres_shop import database

END = utc("2100-01-01")


def settings_for(folder: Path, key: str | None = "a key") -> Settings:
    return Settings(
        lake=str(folder / "lake"),
        ledger_url=f"sqlite:///{folder}/ledger.db",
        mlflow_uri="",
        pseudonym_key=key,
    )


def extracted(url: str, shop: Shop, folder: Path, table: str = "goods") -> pa.Table:
    source = CursorSource(url, shop, settings_for(folder))
    source.check(table)
    with source.changes(table, END, None) as changes:
        return pa.Table.from_batches(list(changes.batches), changes.schema)


WIDE: dict[str, Any] = {
    "id": "int64", "small": "int32", "real": "float64", "flag": "bool", "day": "date",
    "at": "timestamp", "plain": "timestamp", "paid": "decimal(12,4)",
    "any_number": "decimal(38,10)", "word": "string", "padded": "string", "colour": "string",
    "ident": "string", "extra": "string", "number": "string",
}  # fmt: skip
POSTGRES = """
    CREATE DOMAIN price AS numeric(12, 4);
    CREATE TYPE colour AS ENUM ('red', 'green');
    CREATE TABLE wide (id bigint PRIMARY KEY, small smallint, real real, flag boolean, day date,
        at timestamptz NOT NULL, plain timestamp, paid price, any_number numeric, word text,
        padded char(4), colour colour, ident uuid, extra json, number integer, skipped bytea);
    INSERT INTO wide VALUES
        (-9223372036854775808, 32767, 0.5, true, '2017-02-28', '2017-01-02 03:04:05.000001+02',
         '2017-01-02 03:04:05.999999', 12345678.9012, 1234567890123456789012345678.0000000001,
         'Käse 🧀 100%% %%s '':x', 'ab', 'green', '00000000-0000-0000-0000-00000000000a',
         '{"a":  1}', 7, 'x'),
        (9223372036854775807, NULL, NULL, false, 'infinity', '2017-01-02 01:04:05.000001+00',
         '-infinity', 0.1000, 1.5000000000000, '', '', 'red', NULL, NULL, NULL, NULL),
        (0, 0, 'NaN', NULL, NULL, '2017-01-03', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
         NULL, NULL);
"""


@pytest.mark.services
@pytest.mark.parametrize("fast", [True, False], ids=["adbc", "sqlalchemy"])
def test_postgres_types_round_trip(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    if not fast:
        monkeypatch.setattr(adbc, "driver", lambda: None)
    wide = {"key": ["id"], "columns": WIDE, "ignore": ["skipped"]}
    shop = shop_with({"column": "at"}, wide)
    renamed = shop.model_copy(update={"tables": {**shop.tables, "wide": shop.tables["goods"]}})
    with database(postgres, POSTGRES.replace("%%", "%")) as url:
        rows = extracted(url, renamed, tmp_path, "wide").to_pylist()
    first, second, third = (
        {name: row[name] for name in WIDE} for row in (rows[0], rows[1], rows[2])
    )
    moment = dt.datetime(2017, 1, 2, 1, 4, 5, 1, tzinfo=dt.UTC)
    assert first == {
        "id": -(2**63), "small": 32767, "real": 0.5, "flag": True, "day": dt.date(2017, 2, 28),
        "at": moment, "plain": dt.datetime(2017, 1, 2, 3, 4, 5, 999999, dt.UTC),
        "paid": Decimal("12345678.9012"),
        "any_number": Decimal("1234567890123456789012345678.0000000001"),
        "word": "Käse 🧀 100% %s ':x", "padded": "ab", "colour": "green",
        "ident": "00000000-0000-0000-0000-00000000000a", "extra": '{"a":  1}', "number": "7",
    }  # fmt: skip
    assert second == dict.fromkeys(WIDE) | {
        "id": 2**63 - 1, "flag": False, "at": moment, "paid": Decimal("0.1"),
        "any_number": Decimal("1.5"), "word": "", "padded": "", "colour": "red",
    }  # fmt: skip
    outside = ["day: infinity does not fit date", "plain: -infinity does not fit timestamp"]
    assert [row[MISFITS] for row in rows] == [None, " | ".join(outside), None]
    assert third["real"] != third["real"]
    assert third | {"real": None} == dict.fromkeys(WIDE) | {
        "id": 0, "small": 0, "at": dt.datetime(2017, 1, 3, tzinfo=dt.UTC)
    }  # fmt: skip


PLAIN = {
    "id": "int64", "flag": "bool", "day": "date", "at": "timestamp", "paid": "decimal(12,4)",
    "word": "string", "real": "float64", "single": "float64",
}  # fmt: skip
PLAIN_TABLE = """
    CREATE TABLE goods (id bigint PRIMARY KEY, flag boolean, day date, at {moment}, paid
        decimal(12, 4), word varchar(99), `real` double, `single` {single})
"""
PLAIN_ROWS = """
    INSERT INTO goods VALUES
        (9223372036854775807, 1, '2017-02-28', '2017-01-02 03:04:05.000001', 12345678.9012,
         'Käse 🧀 %', 0.1, 1234567.75),
        (-9223372036854775808, 0, NULL, '2017-01-02 03:04:05', 0.1, '', -1e300, 0.5),
        (0, NULL, NULL, '2017-01-02 03:04:06.5', NULL, NULL, NULL, NULL)
"""


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("mariadb", marks=pytest.mark.services)])
def test_other_databases_types_round_trip(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    if kind == "mariadb":
        url = request.getfixturevalue("mariadb_url")
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        moment, single = ("datetime", "real") if kind == "sqlite" else ("datetime(6)", "float")
        connection.exec_driver_sql(PLAIN_TABLE.format(moment=moment, single=single))
        connection.exec_driver_sql(PLAIN_ROWS.replace("%", "%%" if kind == "mariadb" else "%"))
    rows = extracted(url, shop_with({"column": "at"}, {"key": ["id"], "columns": PLAIN}), tmp_path)
    at = dt.datetime(2017, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert rows.select(list(PLAIN)).to_pylist() == [
        dict(zip(PLAIN, (-(2**63), False, None, at, Decimal("0.1"), "", -1e300, 0.5), strict=True)),
        dict(zip(PLAIN, (2**63 - 1, True, dt.date(2017, 2, 28), at.replace(microsecond=1),
                         Decimal("12345678.9012"), "Käse 🧀 %", 0.1, 1234567.75), strict=True)),
        dict.fromkeys(PLAIN) | {"id": 0, "at": at.replace(second=6, microsecond=500_000)},
    ]  # fmt: skip


@pytest.fixture
def shop_file(tmp_path: Path) -> str:
    """An SQLite shop with one row of `goods`."""
    url = f"sqlite:///{tmp_path}/shop.db"
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE goods (part int, sku text, note text, amount decimal(10, 2), "
            "gone boolean, touched timestamp, version bigint, PRIMARY KEY (part, sku))"
        )
        connection.exec_driver_sql(
            "INSERT INTO goods VALUES (1, 'a', 'Ulm', 1.5, 0, '2017-01-02 00:00:00', 1)"
        )
    return url


def change(url: str, statement: str) -> None:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql(statement)


def only_goods(cursor: dict[str, Any] = TIMED, **goods: Any) -> Shop:
    """A shop whose database need hold nothing but `goods`."""
    shop = shop_with(cursor, GOODS | goods)
    return shop.model_copy(update={"tables": {"goods": shop.tables["goods"]}})


def test_installing_changes_nothing_and_checks(shop_file: str) -> None:
    before = Path(make_url(shop_file).database or "").read_bytes()
    assert extract.install(shop_file, only_goods()) == []
    extract.remove(shop_file, only_goods())
    assert Path(make_url(shop_file).database or "").read_bytes() == before
    (finding,) = extract.check(shop_file, only_goods())
    assert "goods.touched is the cursor and has no index" in finding
    change(shop_file, "CREATE INDEX i ON goods (touched, sku)")
    assert extract.check(shop_file, only_goods()) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("ALTER TABLE goods ADD extra int", r"goods\.extra is new; add it to .* or list it"),
        ("ALTER TABLE goods RENAME note TO notes", r"goods\.note is declared.*is it now 'notes'"),
        ("ALTER TABLE goods RENAME TO wares", "goods is declared, but the database has no such"),
        ("UPDATE goods SET touched = NULL", r"goods\.touched is the cursor.*not null"),
        ("UPDATE goods SET touched = '2017-01-02T00:00:00Z'", "a text such as 2017-01-02 10:00"),
        ("UPDATE goods SET touched = '2017-01-02 00:00:00.5+02:00'", "a text such as"),
    ],
)
def test_a_table_that_does_not_fit_is_named(
    shop_file: str, tmp_path: Path, statement: str, expected: str
) -> None:
    change(shop_file, statement)
    with pytest.raises(SchemaDrift, match=expected):
        extract.install(shop_file, only_goods())
    with pytest.raises(SchemaDrift, match=expected):
        extracted(shop_file, only_goods(), tmp_path)


def test_times_of_sqlite_compare_however_they_are_written(shop_file: str, tmp_path: Path) -> None:
    """'00:00:05', '00:00:05.0' and '00:00:05.000000' are one moment, at both bounds."""
    change(shop_file, "DELETE FROM goods")
    for place, text in enumerate(("05", "05.0", "05.000000", "04.999999", "05.000001")):
        change(
            shop_file,
            "INSERT INTO goods (part, sku, touched) "
            f"VALUES ({place}, '{text}', '2017-01-02 00:00:{text}')",
        )
    source = CursorSource(shop_file, only_goods(TIMED | {"lag_s": 0}), settings_for(tmp_path))
    with source.changes("goods", utc("2017-01-02T00:00:05"), None) as changes:
        assert [b["sku"].to_pylist() for b in changes.batches] == [["04.999999"]]
    with source.changes("goods", utc("2017-01-02T00:00:05.000001"), changes.position) as changes:
        (batch,) = changes.batches
        assert sorted(batch["sku"].to_pylist()) == ["05", "05.0", "05.000000"]
    with source.changes("goods", END, changes.position) as changes:
        assert [b["sku"].to_pylist() for b in changes.batches] == [["05.000001"]]


def test_personal_columns_leave_hashed_or_not_at_all(shop_file: str, tmp_path: Path) -> None:
    personal = {"sku": "pseudonymise", "note": "drop"}
    row = extracted(shop_file, only_goods(personal=personal), tmp_path).to_pylist()[0]
    assert row["sku"] == hmac.new(b"a key", b"a", hashlib.sha256).hexdigest()
    assert "note" not in row
    files = list((tmp_path / "lake").rglob("*.parquet"))
    assert files
    assert not any(b"Ulm" in file.read_bytes() for file in files)


def test_many_batches_are_one_extraction(
    shop_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_source, "BATCH", 7)
    monkeypatch.setattr(snapshot, "FIRST_BATCH", 7)
    source = CursorSource(
        shop_file, only_goods(TIMED | {"reconcile": True}), settings_for(tmp_path)
    )
    fill = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) "
        "INSERT OR REPLACE INTO goods SELECT i, 'b', '{0}', i, 0, '2017-01-0{0} 00:00:00', i FROM n"
    )
    position, seen = None, []
    for day in (3, 4):
        change(shop_file, fill.format(day))
        with source.changes("goods", END, position) as changes:
            batches = list(changes.batches)
            position = changes.position
        assert max(batch.num_rows for batch in batches) <= 7
        seen += [place for batch in batches for place in batch["_position"].to_pylist()]
        assert {op for batch in batches for op in batch["_op"].to_pylist()} == {
            "insert" if day == 3 else "update"
        }
    assert len(seen) == 201
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("url", "error", "expected"),
    [
        ("sqlite:////nowhere/shop.db", SourceUnavailable, "shop.db does not answer"),
        ("no url", SettingsError, "write it as an SQLAlchemy URL"),
        ("postgresql://u:secret@127.0.0.1:9/x", SourceUnavailable, "does not answer"),
    ],
)
def test_a_database_that_is_away_is_named(url: str, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected) as raised:
        extract.check(url, only_goods())
    assert "secret" not in str(raised.value)


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        extract.check(f"sqlite:///{tmp_path}/none.db", only_goods())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.services
def test_the_right_to_select_is_enough_and_needed(postgres: Any, tmp_path: Path) -> None:
    table = (
        "CREATE TABLE goods (part int, sku text, note text, amount numeric(10, 2), gone boolean, "
        "touched timestamptz, version bigint, PRIMARY KEY (part, sku)); "
        "INSERT INTO goods VALUES (1, 'a', '', 1, NULL, now(), 1)"
    )
    with database(postgres, table) as url, connect(url) as owner:
        name = make_url(url).database
        owner.execute(f"CREATE ROLE reader_{name} LOGIN PASSWORD 'reader'")
        reader = make_url(url).set(username=f"reader_{name}", password="reader")
        plain = reader.render_as_string(hide_password=False)
        try:
            with pytest.raises(CaptureMissing, match=r"lacks a right.*grant it SELECT"):
                extracted(plain, only_goods(), tmp_path)
            owner.execute(f"GRANT SELECT ON goods TO reader_{name}")
            assert extracted(plain, only_goods(), tmp_path).num_rows == 1
        finally:
            owner.execute(f"DROP OWNED BY reader_{name}; DROP ROLE reader_{name}")


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        ({"column": "changed"}, r"cursor.column: 'changed' is not a column of this table"),
        ({"column": "note"}, "cursor.column: column 'note' must be timestamp or int32 or int64"),
        ({"column": "touched", "deleted": "note"}, "cursor.deleted: column 'note' must be bool"),
        ({"column": "touched", "lag_n": 1}, "cursor.lag_n: .*declare `lag_s`"),
        ({"column": "version", "lag_s": 1}, "cursor.lag_s: .*declare `lag_n`"),
        ({"column": "touched", "lag": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_cursor_is_refused(cursor: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        shop_with(cursor)


def test_cursors_go_with_their_capture_and_with_every_table() -> None:
    with pytest.raises(ValidationError, match="`cursor` goes only with `capture: cursor`; see"):
        shop_with(TIMED, capture="trigger")
    declared = shop_with(TIMED).model_dump(by_alias=True)
    declared["tables"]["goods"]["cursor"] = None
    with pytest.raises(ValidationError, match=r"is required of every table .* see goods"):
        Shop.model_validate(declared)
