"""The stored codes of categorical features: append-only, so that a code never changes its value.

LightGBM derives category codes from the batch it is given, and would misread the trees of an
earlier batch; here a code is given once and travels with the model.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import pyarrow as pa

from pipelines.shared.columns import INTERVAL
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import Lake

TABLE: Final = "state/vocabulary"
UNKNOWN: Final = -1
"""Code of a missing value and of one that was never seen."""

_TYPES: dict[str, pa.DataType] = {
    "feature": pa.string(),
    "value": pa.string(),
    "code": pa.int32(),
    "first_committed_at": pa.timestamp("us", tz="UTC"),
    "first_position": pa.int64(),
}
SCHEMA: Final = pa.schema(_TYPES)


def rows(lake: Lake, until: datetime | None = None, without: Interval | None = None) -> pa.Table:
    """The stored codes, sorted by feature and code, with the partition they came in.

    Args:
        until: only codes given in steps that began before this time.
        without: a step whose partition is not read.
    """
    schema = SCHEMA.append(pa.field(INTERVAL, pa.string()))
    keys = [key for key in lake.intervals(TABLE) if without is None or key != without.key]
    if until is not None:
        keys = [key for key in keys if key < f"{until:%Y-%m-%dT%H:%M:%SZ}"]
    if not keys:
        return schema.empty_table()
    stored = lake.read(TABLE, keys, list(schema.names)).cast(schema)
    return stored.sort_by([("feature", "ascending"), ("code", "ascending")])


def read(lake: Lake, until: datetime) -> dict[str, dict[str, int]]:
    """Feature → value → code, of the steps that began before `until`."""
    codes: dict[str, dict[str, int]] = {}
    known = rows(lake, until)
    for feature, value, code in zip(
        *(known[name].to_pylist() for name in ("feature", "value", "code")), strict=True
    ):
        codes.setdefault(feature, {})[value] = code
    return codes
