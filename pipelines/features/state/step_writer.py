"""Writing a step's partitions of the state, with a record of each for the step's manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import Lake


@dataclass(frozen=True)
class StepWriter:
    """Replaces a step's partitions, and keeps what a reader can hold them to."""

    lake: Lake
    step: Interval
    record: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Table → `rows`, `columns`, `order` and `content_hash` of the step's partition."""

    def write(self, table: str, rows: pa.Table, *order: str) -> None:
        """Replace the step's partition of a table.

        Args:
            rows: sorted by `order`, which gives them a total order.
        """
        self.lake.replace(table, self.step, rows)
        self.record[table] = {
            "rows": rows.num_rows,
            "columns": rows.column_names,
            "order": list(order),
            "content_hash": content_hash(rows),
        }


def chain(after: str | None, record: Mapping[str, Mapping[str, Any]]) -> str:
    """The hash of all state up to a step: of its own, and of the chain of the step before it."""
    hashes = {table: each["content_hash"] for table, each in record.items()}
    return hashlib.sha256(json.dumps([after, hashes], sort_keys=True).encode()).hexdigest()
