"""Deterministic pseudo-random draws from identifiers, pseudonyms, and content hashes of tables."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


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
    key = np.uint64(int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "little"))
    salted: npt.NDArray[np.uint64] = np.bitwise_xor(codes, key)
    upper = _mix(salted) >> np.uint64(11)
    return upper.astype(np.float64) / float(1 << 53)


def pseudonym(key: bytes, text: str) -> str:
    """HMAC-SHA256 (RFC 2104, FIPS 180-4) of a text, as 64 hex digits."""
    return hmac.digest(key, text.encode(), "sha256").hex()


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


_OFFSETS: dict[str, type[np.signedinteger[Any]]] = {
    "string": np.int32,
    "binary": np.int32,
    "large_string": np.int64,
    "large_binary": np.int64,
}


class ContentHash:
    """SHA-256 over schema and values of rows that come piece by piece.

    The digest is that of `content_hash` for all the rows at once: the pieces' sizes mean nothing,
    their order does.
    """

    _ROWS = 65536

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema.remove_metadata()
        self._digest = hashlib.sha256(str(self._schema).encode())
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Take further rows; what fills a block is hashed at once."""
        piece = pa.table(rows).replace_schema_metadata(None)
        self._waiting.append(piece)
        self._rows += piece.num_rows
        if self._rows >= self._ROWS:
            whole = self._rows - self._rows % self._ROWS
            waiting = pa.concat_tables(self._waiting)
            self._hash(waiting.slice(0, whole))
            self._waiting = [waiting.slice(whole)]
            self._rows -= whole

    def hexdigest(self) -> str:
        """The digest of all rows so far; no more may be added afterwards."""
        self._hash(pa.concat_tables([self._schema.empty_table(), *self._waiting]))
        self._waiting = []
        return self._digest.hexdigest()

    def _hash(self, rows: pa.Table) -> None:
        for start in range(0, rows.num_rows, self._ROWS):
            block = rows.slice(start, self._ROWS)
            for name in block.column_names:
                self._column(block.column(name))

    def _column(self, column: Any) -> None:
        # What lies in memory under a null, or behind the last bit of a bitmap, is nobody's value.
        self._bits(column.is_valid())
        present = column.drop_null()
        if pa.types.is_boolean(present.type):
            self._bits(present)
        elif pa.types.is_list(present.type) or pa.types.is_large_list(present.type):
            self._column(pc.list_value_length(present))
            self._column(pc.list_flatten(present))
        elif pa.types.is_dictionary(present.type):
            self._column(present.cast(present.type.value_type))
        elif offsets := _OFFSETS.get(str(present.type)):
            self._column(pc.binary_length(present))
            for chunk in filter(len, present.chunks):
                ends = np.frombuffer(chunk.buffers()[1], offsets)
                first, last = ends[chunk.offset], ends[chunk.offset + len(chunk)]
                self._bytes(chunk, int(first), int(last))
        elif len(present):
            width = present.type.bit_width // 8
            for chunk in present.chunks:
                start = chunk.offset * width
                self._bytes(chunk, start, start + len(chunk) * width)

    def _bytes(self, chunk: Any, start: int, end: int) -> None:
        # Exactly these: behind an array's last byte lies padding, or its neighbour.
        if end > start:
            self._digest.update(memoryview(chunk.buffers()[-1])[start:end])

    def _bits(self, column: Any) -> None:
        self._digest.update(np.packbits(column.to_numpy().astype(np.bool_)).tobytes())


def content_hash(table: pa.Table) -> str:
    """SHA-256 over schema and values of a table, independent of chunking.

    Rows count in the order given: sort first where the order means nothing.
    """
    digest = ContentHash(table.schema)
    digest.add(table)
    return digest.hexdigest()
