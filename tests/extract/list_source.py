"""A shop's database as lists: the smallest thing that is a `ChangeSource`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipelines.extract.source import ChangeBatch, Position, change_schema
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing
from pipelines.shared.intervals import utc


@dataclass
class Transaction:
    """Writes that become visible together, or never."""

    database: ListSource
    number: int
    at: datetime
    undo: list[dict[Any, dict[str, Any]]] = field(default_factory=list)

    def insert(self, table: str, row: dict[str, Any]) -> None:
        self._put(table, "insert", row)
        self.database.rows[table][self._key(table, row)] = row

    def update(self, table: str, row: dict[str, Any]) -> None:
        if self.database.rows[table][self._key(table, row)] != row:
            self._put(table, "update", row)
            self.database.rows[table][self._key(table, row)] = row

    def delete(self, table: str, row: dict[str, Any]) -> None:
        self._put(table, "delete", self.database.rows[table].pop(self._key(table, row)))

    def commit(self) -> None:
        self.database.committed.add(self.number)

    def rollback(self) -> None:
        self.database.rows = self.before

    def __post_init__(self) -> None:
        self.before = {table: dict(rows) for table, rows in self.database.rows.items()}

    def _key(self, table: str, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.database.shop.tables[table].key)

    def _put(self, table: str, op: str, row: dict[str, Any]) -> None:
        log = self.database.log
        own = {
            "_op": op,
            "_committed_at": self.at,
            "_position": len(log) + 1,
            "_transaction": self.number,
        }
        log.append((table, row | own))


class ListSource:
    """Change log, rows and transactions in memory; one writer at a time may roll back."""

    def __init__(self, shop: Shop, now: datetime = datetime(2017, 6, 1, tzinfo=UTC)) -> None:
        self.shop, self.now = shop, now
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.rows: dict[str, dict[Any, dict[str, Any]]] = {table: {} for table in shop.tables}
        self.committed: set[int] = set()
        self.begun = 0
        self.reads = 0
        self.batch = 3
        self.fault = ""

    def begin(self, at: str) -> Transaction:
        self.begun += 1
        return Transaction(self, self.begun, utc(at))

    def table(self, name: str) -> list[dict[str, Any]]:
        return list(self.rows[name].values())

    def clock(self) -> datetime:
        return self.now

    def check(self, table: str) -> None:
        if self.fault:
            raise CaptureMissing(self.fault)

    @contextmanager
    def changes(
        self, table: str, before: datetime, after: Position | None, upto: Position | None = None
    ) -> Iterator[ChangeBatch]:
        self.reads += 1
        seen = set(upto["committed"]) if upto else set(self.committed)

        def due(change: dict[str, Any]) -> bool:
            if change["_transaction"] not in seen or change["_committed_at"] >= before:
                return False
            return after is None or not (
                change["_transaction"] in after["committed"]
                and change["_committed_at"] < utc(after["end"])
            )

        rows = [change for name, change in self.log if name == table and due(change)]
        schema = change_schema(self.shop.tables[table])
        yield ChangeBatch(
            {"committed": sorted(seen), "end": before.isoformat()},
            schema,
            (
                pa.RecordBatch.from_pylist(rows[start : start + self.batch], schema)
                for start in range(0, len(rows), self.batch)
            ),
        )
