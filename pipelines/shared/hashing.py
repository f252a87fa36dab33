"""Deterministic pseudo-random draws from identifiers, and content hashes of tables."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa


def draw(salt: str, *columns: Any) -> npt.NDArray[np.float64]:
    """Give each row a number in `[0, 1)` that depends on its values and `salt` alone.

    Args:
        salt: names the purpose, so that two purposes draw independently.
        columns: equally long arrays (numpy, pandas or Arrow) that identify the row.

    Returns:
        float64 array, one draw a row; the same on every machine and run.
    """
    frame = pd.DataFrame(
        {str(place): pd.Series(_plain(column)) for place, column in enumerate(columns)}
    )
    codes = pd.util.hash_pandas_object(frame, index=False, categorize=True).to_numpy(np.uint64)
    salted = codes ^ np.uint64(int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "little"))
    return (_mix(salted) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): every bit depends on every other."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _plain(column: Any) -> Any:
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return column.to_pandas()
    return column


def content_hash(table: pa.Table) -> str:
    """SHA-256 over schema and values of a table, independent of chunking.

    Rows count in the order given: sort first where the order means nothing.
    """
    bare = table.replace_schema_metadata(None)
    digest = hashlib.sha256(str(bare.schema).encode())
    for batch in bare.combine_chunks().to_batches(max_chunksize=65536):
        digest.update(batch.serialize())
    return digest.hexdigest()
