"""Every capture mode on every server that it is promised for: the entries of `MODES`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run

GOODS, SALES = "goods", "sales"
_COLUMNS = {
    GOODS: {"sku": "string", "note": "string", "amount": "decimal(10,2)", "stock": "int64",
            "touched": "timestamp"},
    SALES: {"basket": "int64", "sku": "string", "shopper": "string", "touched": "timestamp"},
}  # fmt: skip
_KEYS = {GOODS: ["sku"], SALES: ["basket", "sku"]}
_DECLARED: dict[str, Any] = {
    "shop": "corner",
    "title": "A corner shop",
    "shopper": {"table": SALES, "id": "shopper"},
    "item": {"table": GOODS, "id": "sku", "category": "note"},
    "events": [
        {"kind": "sale", "grade": 1, "table": SALES, "time": "touched", "shopper": "shopper",
         "item": "sku", "group": "basket"}
    ],
    "surfaces": [{"name": "basket", "candidates": "generated", "groups_of": "sale"}],
    "interval": {"anchor": "2017-01-02", "days": 1},
}  # fmt: skip


@dataclass(frozen=True)
class CaptureMode:
    """A capture mode on a server, and what it promises there."""

    capture: str
    server: str
    """Fixture of the server; empty: a file."""
    versions: bool = True
    """Every change of a row comes, not only its last state before an extraction."""
    whole: bool = True
    """A transaction lies in the same interval of every table, whenever it commits."""
    stamp: str = ""
    """Gives a transaction the time {second}, where the mode goes by the session's clock."""
    whole_seconds: bool = False
    """Commit times are whole seconds."""
    named: bool = True
    """A change tells which transaction it is of."""
    parallel: bool = True
    """Several transactions can write at once."""
    truncate: type[Exception] | None = None
    """What a TRUNCATE is refused with; None: it is the delete of every row."""

    def __str__(self) -> str:
        return f"{self.capture}-{self.server or 'sqlite'}"

    @property
    def clock(self) -> bool:
        """Whether a test can choose the time of commits."""
        return bool(self.stamp) or self.capture == "cursor"


MODES = [
    CaptureMode("trigger", "postgres",
        stamp="SELECT set_config('freshrank.clock', to_timestamp({second})::text, true)"),
    CaptureMode("trigger", "mariadb", stamp="SET timestamp = {second}", truncate=CaptureMissing),
    CaptureMode("trigger", "", whole=False, named=False, parallel=False),
    CaptureMode("wal", "logical_postgres", truncate=CaptureMissing),
    CaptureMode("wal", "debian_postgres", truncate=CaptureMissing),
    CaptureMode("binlog", "mariadb", stamp="SET timestamp = {second}", whole_seconds=True,
        truncate=SchemaDrift),
    CaptureMode("cursor", "", versions=False, whole=False, parallel=False),
    CaptureMode("cursor", "postgres", versions=False, whole=False),
    CaptureMode("cursor", "mariadb", versions=False, whole=False),
]  # fmt: skip


def declared(mode: CaptureMode, schema: str) -> Shop:
    """The shop as it is captured; a cursor finds deletes by reconciling."""
    tables: dict[str, Any] = {
        name: {"key": _KEYS[name], "columns": columns} for name, columns in _COLUMNS.items()
    }
    if mode.capture == "cursor":
        for table in tables.values():
            table["cursor"] = {"column": "touched", "reconcile": True}
    source = {"connection": "corner", "capture": mode.capture, "schema": schema}
    return Shop.model_validate_json(
        json.dumps(_DECLARED | {"sources": {"shop": source}, "tables": tables})
    )


class AnyInterval(Run):
    """A run whose interval need not lie on the shop's grid."""

    @cached_property
    def steps(self) -> tuple[Interval, ...]:
        return (self.interval,)
