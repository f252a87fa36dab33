"""Every declared type arrives as it was written, whichever way it comes: compared by hash."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.extract.cursor import adbc
from pipelines.inspect import export
from pipelines.shared.errors import SchemaDrift
from pipelines.shared.hashing import content_hash
from pipelines.shared.lake import in_source_order
from pipelines.validate.duplicates import repeated
from tests.extract.drifting import MODES, Goods, goods

pytestmark = pytest.mark.services
UTC = dt.UTC

# Column → declared type, its type in PostgreSQL, MariaDB and SQLite (empty: none), values.
VALUES: dict[str, tuple[str, str, str, str, tuple[Any, ...]]] = {
    "small": ("int16", "smallint", "smallint", "smallint", (-(2**15), 2**15 - 1, 0)),
    "mid": ("int32", "integer", "int", "integer", (-(2**31), 2**31 - 1, 0)),
    "large": ("int64", "bigint", "bigint", "bigint", (-(2**63), 2**63 - 1, 0)),
    "whole": ("uint32", "", "int unsigned", "", (0, 2**32 - 1, 1)),
    "huge": ("uint64", "", "bigint unsigned", "", (0, 2**64 - 1, 2**63)),
    "ratio": ("float64", "double precision", "double", "real", (0.1, -1e300, 5e-324)),
    "paid": (
        "decimal(18,4)", "numeric(18,4)", "decimal(18,4)", "",
        (Decimal("-99999999999999.9999"), Decimal("0.0001"), Decimal("0")),
    ),
    "any_number": (
        "decimal(38,10)", "numeric", "decimal(38,10)", "",
        (Decimal("1234567890123456789012345678.0000000001"), Decimal("-1E-10"), Decimal("10")),
    ),
    "flag": ("bool", "boolean", "boolean", "boolean", (True, False, True)),
    "day": (
        "date", "date", "date", "date",
        (dt.date(1969, 12, 31), dt.date(9999, 12, 31), dt.date(2000, 2, 29)),
    ),
    "at": (
        "timestamp", "timestamptz", "datetime(6)", "datetime",
        (
            dt.datetime(2017, 3, 26, 1, 59, 59, 999999, UTC),
            dt.datetime(1969, 12, 31, 23, 59, 59, 1, UTC),
            dt.datetime(2017, 10, 29, 0, 30, tzinfo=UTC),
        ),
    ),
    "word": ("string", "text", "longtext", "text", ("", "Käse 🧀 'x' \\x41 %s", "a\nb\t\r\"c,")),
    "padded": ("string", "varchar(9)", "varchar(9)", "varchar(9)", ("  x ", "NULL", "\\N")),
    "ident": (
        "uuid", "uuid", "uuid", "",
        (
            "00112233-4455-6677-8899-aabbccddee00",
            "ffffffff-ffff-1fff-bfff-ffffffffffff",
            "00000000-0000-0000-0000-000000000000",
        ),
    ),
    "doc": ("json", "json", "json", "text", ('{"b":  [1, null], "a": "ü"}', '""', "[]")),
    "data": ("bytes", "bytea", "longblob", "blob", (b"", b"\x00\xff\\x41\x00", b"plain")),
    "fixed": ("bytes", "", "binary(4)", "", (b"\x00\x00\x00\x00", b"a\x00b\x00", b"abcd")),
}  # fmt: skip
DIALECTS = ("postgresql", "mysql", "sqlite")
SUBJECTS = (*MODES, "cursor postgresql", "cursor mariadb")


@pytest.fixture(params=SUBJECTS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Goods]:
    with goods(request, tmp_path) as made:
        if request.param == "cursor mariadb":
            made.url = made.url.replace("mysql+pymysql", "mariadb+pymysql")
        yield made


def columns_of(shop: Goods) -> dict[str, tuple[str, str, tuple[Any, ...]]]:
    place = DIALECTS.index(shop.dialect)
    return {name: (each[0], each[1 + place], each[4]) for name, each in VALUES.items()
            if each[1 + place]}  # fmt: skip


def write(shop: Goods, first: int) -> None:
    """The three rows of values, and one of nulls."""
    columns = columns_of(shop)
    for number in range(3):
        values = {name: each[2][number] for name, each in columns.items()}
        if shop.dialect != "postgresql":
            values = {name: _plain(value) for name, value in values.items()}
        shop.put(first + number, **values)
    shop.put(first + 3)


def _plain(value: Any) -> Any:
    """As drivers without zones and time types take it."""
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None).isoformat(" ")
    return value.isoformat() if isinstance(value, dt.date) else value


def written(shop: Goods, first: int) -> pa.Table:
    stored = shop.shop.tables["goods"].stored_columns()
    rows = {name: pa.array([*each[2], None], stored[name])
            for name, each in columns_of(shop).items()}  # fmt: skip
    return pa.table({"id": pa.array(range(first, first + 4), pa.int64()), **rows})


@pytest.mark.parametrize("fast", [True, False], ids=["", "sqlalchemy"])
def test_what_was_written_is_what_is_stored(
    shop: Goods, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        if (shop.capture, shop.dialect) != ("cursor", "postgresql"):
            pytest.skip("has one way to read")
        monkeypatch.setattr(adbc, "driver", lambda: None)
    columns = columns_of(shop)
    shop.create(", ".join(f"{name} {each[1]}" for name, each in columns.items()))
    shop.declare({name: each[0] for name, each in columns.items()})
    write(shop, 1)
    shop.install()
    found = shop.take()
    write(shop, 5)
    for first, rows in ((1, found), (5, shop.take())):
        expected = written(shop, first)
        rows = rows.sort_by("id").select(expected.column_names)
        assert rows.to_pylist() == expected.to_pylist()
        assert content_hash(rows) == content_hash(expected)
    _the_rest_copes(shop, found, tmp_path)


def _the_rest_copes(shop: Goods, rows: pa.Table, folder: Path) -> None:
    """What reads changes later can sort, compare and write such columns."""
    assert in_source_order(rows).num_rows == 4
    names = tuple(columns_of(shop))
    assert repeated(rows, ("id",), ("id", *names), 1).sum() == 0
    for name in ("out.csv", "out.parquet"):
        assert export.write(rows.to_reader(), folder / name) == 4
    assert pq.read_table(folder / "out.parquet").num_rows == 4


def test_a_type_that_fits_no_declared_one_is_named(shop: Goods) -> None:
    wide = {"postgresql": "bigint", "mysql": "bigint", "sqlite": "text"}
    shop.create(f"number {wide[shop.dialect]}")
    for kind in ("int16", "uint32", "uuid", "bytes"):
        shop.declare({"number": kind})
        with pytest.raises(SchemaDrift, match=rf"goods\.number is declared {kind}, but .*accepted"):
            shop.install()


def test_uuids_are_written_as_python_writes_them() -> None:
    assert all(str(UUID(value)) == value for value in VALUES["ident"][4])
