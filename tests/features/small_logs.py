"""Small change logs in plain values: a grocery in the bundled shop's columns, and the tiny shop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.validated_lake import FIRST, ValidatedLake, change_schema, of_step
from pipelines.shared import columns
from pipelines.shared.declaration import Shop
from pipelines.shared.run import Run
from tests.extract.postgres_shop import DECLARED

Row = dict[str, Any]


def at(day: float) -> datetime:
    """Days after the first step's start."""
    return FIRST + timedelta(days=day)


def log_of(shop: Shop, table: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Changes from plain values; columns left out are null, operations are inserts."""
    schema = change_schema(shop, table)
    defaults = {columns.OP: columns.INSERT, columns.TRANSACTION: "t"}
    filled = [{**dict.fromkeys(schema.names), **defaults, **row} for row in rows]
    return pa.Table.from_pylist(filled, schema=schema)


class Log:
    """Changes of several tables, positions in the order of the calls."""

    def __init__(self, shelf: ValidatedLake) -> None:
        self.shelf = shelf
        self._rows: dict[str, list[Row]] = {table: [] for table in shelf.shop.tables}
        self._positions = count(1)

    def add(self, table: str, day: float, op: str = columns.INSERT, **values: Any) -> None:
        """A change committed on a day."""
        change = {
            columns.OP: op,
            columns.COMMITTED_AT: at(day),
            columns.POSITION: next(self._positions),
        }
        self._rows[table].append(values | change)

    def tables(self) -> dict[str, pa.Table]:
        """The log so far."""
        return {name: log_of(self.shelf.shop, name, rows) for name, rows in self._rows.items()}

    def validate(self, *steps: int) -> None:
        """Leave steps as validation would."""
        for step in steps:
            self.shelf.validated(step, of_step(self.tables(), step))


def rows_of(run: Run, table: str) -> list[Row]:
    """A partition of a table that exists, as plain values."""
    rows = run.lake.read(table, [run.interval]).drop_columns([columns.INTERVAL])
    listed: list[Row] = rows.to_pylist()
    return listed


class Grocery(Log):
    """The bundled shop's tables with a few items: 1 and 2 are drinks, 3 to 6 are food."""

    def __init__(self, folder: Path, shoppers: int = 3) -> None:
        super().__init__(ValidatedLake.at(folder, "completejourney"))
        for item in range(1, 7):
            self.item(0, item, "drinks" if item < 3 else "food", price=item)
        for shopper in range(1, shoppers + 1):
            self.add("households", 0, household_id=shopper)

    def item(
        self, day: float, item: int, category: str | None, price: float = 1, op: str = "insert"
    ) -> None:
        """A change of an item."""
        self.add(
            "products", day, op, product_id=item, product_category=category, department="d",
            brand=f"brand {item % 2}", price=Decimal(str(price)),
        )  # fmt: skip

    def line(
        self, day: float, order: int, shopper: int, item: int, *, op: str = "insert",
        happened: float | None = None, quantity: int = 1, paid: float = 1.0,
    ) -> None:  # fmt: skip
        """A change of an order's line; its number is the item's."""
        self.add(
            "order_lines", day, op, order_id=order, line_no=item, household_id=shopper,
            product_id=item, ordered_at=at(day if happened is None else happened),
            quantity=quantity, sales_value=Decimal(str(paid)),
        )  # fmt: skip


class Web(Log):
    """The tiny shop: articles a to f, lists and actions."""

    def __init__(self, folder: Path) -> None:
        super().__init__(ValidatedLake.at(folder, "tiny", DECLARED))
        for place, sku in enumerate("abcdef"):
            self.add("articles", 0, sku=sku, kind=f"kind {place % 2}", maker="m", amount=Decimal(1))
        for uid in ("u", "v", "w"):
            self.add("users", 0, uid=uid)

    def show(
        self, day: float, name: str, uid: str, skus: str, happened: float | None = None
    ) -> None:
        """A list of articles."""
        for place, sku in enumerate(skus):
            shown_at = at(day if happened is None else happened)
            self.add(
                "shown", day, list_id=name, sku=sku, uid=uid, place=place, shown_at=shown_at
            )  # fmt: skip

    def act(
        self, day: float, name: str, kind: str, uid: str, sku: str, *, op: str = "insert",
        happened: float | None = None,
    ) -> None:  # fmt: skip
        """A view, cart or purchase."""
        moment = at(day if happened is None else happened)
        self.add("actions", day, op, action_id=name, type=kind, uid=uid, sku=sku, at=moment)
