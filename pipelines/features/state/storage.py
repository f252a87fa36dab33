"""The stage's lake tables: their schemas, and reading them as of a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.features.engines.base import conform
from pipelines.shared import columns
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CorruptPartition, FeatureMismatch
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run

EVENTS = "state/events"
ITEMS = "state/items"
PERIODS = "state/periods"
SHOPPERS = "state/shoppers"
OPEN_GROUPS = "state/open_groups"
SHOWN = "state/shown"
SHOPPER_FACTORS = "state/factors_shoppers"
ITEM_FACTORS = "state/factors_items"

_TIME = pa.timestamp("us", tz="UTC")
_CHANGE: dict[str, pa.DataType] = {
    columns.OP: pa.string(),
    columns.COMMITTED_AT: _TIME,
    columns.POSITION: pa.int64(),
}


def _schema(types: dict[str, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in types.items()])


@dataclass(frozen=True)
class Layout:
    """Schemas of the stage's tables for one shop."""

    shop: Shop

    @property
    def shopper(self) -> pa.DataType:
        """Type of a shopper's id."""
        return self._type(self.shop.shopper.table, self.shop.shopper.id)

    @property
    def item(self) -> pa.DataType:
        """Type of an item's id."""
        return self._type(self.shop.item.table, self.shop.item.id)

    def _type(self, table: str, column: str) -> pa.DataType:
        return self.shop.tables[table].stored_columns()[column]

    def changes(self, table: str) -> pa.Schema:
        """`valid/<table>`: declared columns and those of a change that matter here."""
        return _schema({**self.shop.tables[table].stored_columns(), **_CHANGE})

    @property
    def events(self) -> pa.Schema:
        """`state/events`, a row an event version."""
        return _schema(
            {
                "event_key": pa.string(),
                "kind": pa.string(),
                "grade": pa.int32(),
                columns.SHOPPER: self.shopper,
                columns.ITEM: self.item,
                "group_key": pa.string(),
                "event_time": _TIME,
                "quantity": pa.float64(),
                "price_cents": pa.int64(),
                **_CHANGE,
            }
        )

    @property
    def shown(self) -> pa.Schema:
        """`state/shown`, a row a version of an item's showing in a list."""
        return _schema(
            {
                "shown_key": pa.string(),
                columns.GROUP: pa.string(),
                columns.SHOPPER: self.shopper,
                columns.ITEM: self.item,
                columns.GROUP_TIME: _TIME,
                "shown_position": pa.int32(),
                **_CHANGE,
            }
        )

    @property
    def items(self) -> pa.Schema:
        """`state/items`, a row an item: `category` and attributes as text, and when the shop
        first listed it."""
        attributes = {f"item_{name}": pa.string() for name in self.shop.item.attributes}
        available = {"available": pa.bool_()} if self.shop.item.available else {}
        return _schema(
            {
                columns.ITEM: self.item,
                "item_category": pa.string(),
                **attributes,
                **available,
                "price_cents": pa.int64(),
                "listed_at": _TIME,
                columns.POSITION: pa.int64(),
            }
        )

    @property
    def periods(self) -> pa.Schema:
        """`state/periods`, a row an item and period."""
        values = {name: pa.float64() for name in self.period_attributes}
        return _schema(
            {
                "period_key": pa.string(),
                columns.ITEM: self.item,
                "valid_from": _TIME,
                "valid_until": _TIME,
                **values,
                columns.POSITION: pa.int64(),
            }
        )

    @property
    def period_attributes(self) -> tuple[str, ...]:
        """Feature names of every declared period attribute."""
        return tuple(sorted({name for each in self.shop.periods for name in each.attributes}))

    @property
    def shoppers(self) -> pa.Schema:
        """`state/shoppers`, a row a shopper of the shopper table."""
        return _schema({columns.SHOPPER: self.shopper, columns.POSITION: pa.int64()})

    @property
    def index(self) -> pa.Schema:
        """`group_index/<surface>`, a row a group."""
        return _schema(
            {
                columns.GROUP: pa.string(),
                columns.SHOPPER: self.shopper,
                columns.GROUP_TIME: _TIME,
                columns.MATURE_AT: _TIME,
                columns.MEMORY: pa.bool_(),
                columns.RELEVANT: pa.int32(),
                columns.FOUND: pa.int32(),
                columns.CANDIDATES: pa.int32(),
                columns.IDEAL_DCG: pa.float64(),
            }
        )

    def rows(self, features: dict[str, pa.DataType]) -> pa.Schema:
        """`groups/<surface>`, a row a candidate of a group."""
        logged = self.shop.surface.candidates == "logged"
        position = {"shown_position": pa.int32()} if logged else {}
        return _schema(
            {
                columns.GROUP: pa.string(),
                columns.SHOPPER: self.shopper,
                columns.ITEM: self.item,
                columns.LABEL: pa.int8(),
                **position,
                **features,
            }
        )

    def open_rows(self, features: dict[str, pa.DataType]) -> pa.Schema:
        """`state/open_groups`: rows of `groups` whose attribution window is open yet."""
        times = [pa.field(name, _TIME) for name in (columns.GROUP_TIME, "window_end", "known_at")]
        return pa.schema([*self.rows(features), *times])


def read(run: Run, table: str, schema: pa.Schema, step: Interval | None) -> pa.Table:
    """A step's partition of a table; empty where there is none, or no step.

    Raises:
        FeatureMismatch: the table was written when the shop declared fewer columns.
        CorruptPartition: a file of it is damaged.
    """
    if step is None:
        return schema.empty_table()
    return _read(run, table, schema, intervals=[step])


def read_changes(run: Run, layout: Layout, table: str, step: Interval) -> pa.Table:
    """A step's sound changes of a source table."""
    return read(run, f"valid/{table}", layout.changes(table), step)


def read_between(
    run: Run,
    table: str,
    schema: pa.Schema,
    since: datetime,
    until: datetime,
    where: pc.Expression | None = None,
) -> pa.Table:
    """Partitions whose step overlaps `[since, until)` or lies inside it; errors as of `read`.

    Args:
        where: only rows for which this holds; the others are never held in memory.
    """
    first = since - timedelta(days=run.shop.interval.days)
    low, high = (f"{edge:%Y-%m-%dT%H:%M:%SZ}" for edge in (first, until))
    return _read(run, table, schema, between=(low, high), where=where)


def _read(run: Run, table: str, schema: pa.Schema, **partitions: Any) -> pa.Table:
    try:
        rows = run.lake.read(table, columns=list(schema.names), **partitions)
        return conform(rows, schema)
    except KeyError:
        return schema.empty_table()
    except CorruptPartition:
        missing = sorted(set(schema.names) - set(run.lake.columns(table)))
        if not missing:
            raise
        partitions.pop("where", None)
        held = run.lake.read(table, columns=[columns.INTERVAL], **partitions)[columns.INTERVAL]
        if len(held) == 0:
            return schema.empty_table()
        raise FeatureMismatch(
            f"{table} of shop {run.shop.shop} was written without what shop.yaml or this version "
            f"of Freshrank asks for: {', '.join(missing)}; run `python -m pipelines features "
            f"rebuild --shop {run.shop.shop} --start {pc.min(held)} --end "
            f"{run.interval.end:%FT%TZ}`, or go back to what wrote it"
        ) from None


def tables_read(shop: Shop) -> list[str]:
    """The source tables whose changes this stage folds."""
    shown = shop.surface.impressions
    return sorted(
        {shop.shopper.table, shop.item.table}
        | {event.table for event in shop.events}
        | {periods.table for periods in shop.periods}
        | ({shown.table} if shown is not None else set())
    )
