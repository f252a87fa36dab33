"""Checks a shop that declares `capture: cursor`, for which nothing is installed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipelines.extract.cursor.snapshot import Snapshot, open_snapshot
from pipelines.extract.databases.any.catalogue import columns_of, drift
from pipelines.shared.declaration import Cursor, Shop, Table
from pipelines.shared.errors import SchemaDrift


def cursor_of(table: Table) -> Cursor:
    """A table's cursor; a shop that declares `capture: cursor` has one for each."""
    assert table.cursor is not None  # noqa: S101 (the declaration is checked when it is made)
    return table.cursor


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Nothing is installed: the declared tables are checked; see `modes.install`.

    Raises:
        SchemaDrift: a table is not as declared, or a cursor is null.
    """
    del at  # A row's commit time is its cursor.
    with open_snapshot(url, shop) as snapshot:
        if wrong := [
            fault
            for table in sorted(shop.tables)
            for fault in faults(snapshot, table) or unfit_cursor(snapshot, table)
        ]:
            raise SchemaDrift("; ".join(wrong))
    return []


def remove(url: str, shop: Shop) -> None:
    """Nothing was installed, nothing is removed."""


def check(url: str, shop: Shop) -> list[str]:
    """What is wrong with the shop's tables, each with the way out; a slow cursor is named too.

    Raises:
        CaptureMissing: the account may not read.
        SourceUnavailable: the database does not answer.
    """
    findings = []
    with open_snapshot(url, shop) as snapshot:
        for table in sorted(shop.tables):
            findings += faults(snapshot, table) or [
                *unfit_cursor(snapshot, table), *_unindexed(snapshot, table)
            ]  # fmt: skip
    return findings


def faults(snapshot: Snapshot, table: str) -> list[str]:
    """Why a table cannot be extracted by its cursor; empty where it can."""
    if drifts := drift(snapshot.connection, snapshot.shop, table):
        return drifts
    name = cursor_of(snapshot.shop.tables[table]).column
    if columns_of(snapshot.connection, snapshot.shop, table)[name].type == "date":
        return [
            f"{table}.{name} is the cursor, but a date: all of a day's writes look alike; name a "
            f"column with a time of day in `tables.{table}.cursor.column`"
        ]
    return []


def unfit_cursor(snapshot: Snapshot, table: str) -> list[str]:
    """Why rows of a table cannot be ordered by its cursor; empty where they can."""
    declared = snapshot.shop.tables[table]
    name = cursor_of(declared).column
    source = snapshot.table(table)
    timed = declared.columns[name] == "timestamp"
    unfit = snapshot.unfit(source.c[name], timed)
    one = sa.select(sa.literal(1)).select_from(source).where(unfit).limit(1)
    if snapshot.connection.scalar(one) is None:
        return []
    rule = "not null"
    if timed and snapshot.dialect == "sqlite":
        rule = "not null and a text such as 2017-01-02 10:00:00.000001, in UTC"
    return [
        f"{table}.{name} is the cursor, but rows have none that can be compared, and would never "
        f"be found; it has to be {rule}: fill it in those rows, and let every write set it"
    ]


def _unindexed(snapshot: Snapshot, table: str) -> list[str]:
    name = cursor_of(snapshot.shop.tables[table]).column
    inspector = sa.inspect(snapshot.connection)
    indexed: list[Any] = [
        each["column_names"] for each in inspector.get_indexes(table, snapshot.schema)
    ]
    primary: Any = inspector.get_pk_constraint(table, snapshot.schema)["constrained_columns"]
    if any(columns[:1] == [name] for columns in [*indexed, primary]):
        return []
    return [
        f"{table}.{name} is the cursor and has no index, so that every extraction reads the whole "
        f"table; CREATE INDEX {table}_{name} ON {table} ({name})"
    ]
