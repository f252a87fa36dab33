"""What a capture mode gives of the corner shop, and what it leads to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pyarrow as pa

from benchmarks.corner.modes import GOODS
from benchmarks.corner.shop import Corner, Fold
from pipelines.extract.source import Position
from pipelines.shared.columns import OP


def take(
    corner: Corner,
    before: datetime | None = None,
    after: Position | None = None,
    upto: Position | None = None,
    table: str = GOODS,
) -> tuple[pa.Table, Position]:
    """The changes before a time, by default all there are, and the position after them."""
    with corner.source.changes(table, before or corner.cut(), after, upto) as taken:
        rows = pa.Table.from_batches(list(taken.batches), taken.schema)
    return rows, json.loads(json.dumps(taken.position))


def checked(corner: Corner, after: Position) -> tuple[pa.Table, Position]:
    """The changes as the stage takes them, which looks at the table first."""
    corner.source.check(GOODS)
    return take(corner, None, after)


def folded(corner: Corner, pieces: Iterable[pa.Table], table: str = GOODS) -> pa.Table:
    """What changes lead to, interval by interval, each applied in the order of its places."""
    fold = Fold(corner, table)
    for piece in pieces:
        fold.add(piece)
    return fold.state()


def skus(changes: pa.Table) -> list[Any]:
    return changes["sku"].to_pylist()


def news(changes: pa.Table) -> list[tuple[Any, Any]]:
    return list(zip(changes[OP].to_pylist(), skus(changes), strict=True))
