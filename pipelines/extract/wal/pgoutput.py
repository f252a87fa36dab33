"""Decodes pgoutput, the logical replication stream that PostgreSQL has built in, in bulk.

A chunk of messages is one buffer. Where each message, tuple and value lies in it is worked out
for all messages at once by NumPy; Arrow then gathers each column in one go. No Python runs per
row. Protocol version 1:
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.extract.wal.slot import FRESH_START
from pipelines.shared.columns import DELETE, INSERT, UPDATE
from pipelines.shared.errors import CaptureMissing

Ints = np.ndarray[Any, np.dtype[np.int64]]
_B, _D, _I, _N, _O, _R, _T, _U = b"BDINORTU"
_NULL, _SAME, _TEXT = b"nut"
_EPOCH_US = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970: where PostgreSQL counts from."""
_NO_OLD_ROWS = (
    "changes of {table} were written without their old rows: its REPLICA IDENTITY was not FULL "
    f"all the time; {FRESH_START}"
)


class Transactions(NamedTuple):
    """Of each item: its transaction's commit position, commit time (µs since 1970) and 32-bit
    id."""

    lsn: Ints
    at: Ints
    xid: Ints

    def take(self, places: Any) -> Transactions:
        """Those at some places, or where a mask holds."""
        return Transactions(self.lsn[places], self.at[places], self.xid[places])


@dataclass(frozen=True)
class Relation:
    """A table as the stream describes it: its columns and the types' numbers."""

    name: str
    columns: dict[str, tuple[int, int]]
    """Column → type oid and modifier, in the order of the values."""


class Rows(NamedTuple):
    """Changes in order."""

    columns: dict[str, Any]
    """Column → values as PostgreSQL writes them (Arrow strings)."""
    op: Any
    transactions: Transactions


@dataclass(frozen=True)
class Chunk:
    """Messages of one table between two descriptions of it.

    `begun` are the transactions that begin in the chunk, also those without a change here.
    """

    buffer: Any
    kind: Any
    start: Ints
    transactions: Transactions
    begun: Transactions
    relation: Relation | None
    truncated: Ints
    """Commit positions of transactions that truncated the table."""

    def rows(self, mask: Any, names: list[str], key: list[str], images: bool = False) -> Rows:
        """The changes where `mask` holds.

        An update that changes the key is a delete of the old and an insert of the new one. A
        column that the table did not have yet is null. With `images`, what stood before each
        change instead: every old row as a `delete`, and an `insert` for each key that was not
        there.

        Raises:
            CaptureMissing: the stream lacks old rows.
        """
        at = np.flatnonzero(mask)
        if self.relation is None or not len(at):
            none = pa.array([], pa.string())
            return Rows(dict.fromkeys(names, none), none, self.transactions.take(at))
        kind, after = self.kind[at], self.start[at] + 5
        has_old, has_new = kind != _I, kind != _D
        if (self.buffer[after] != np.where(has_old, _O, _N)).any():
            raise CaptureMissing(_NO_OLD_ROWS.format(table=self.relation.name))
        width = len(self.relation.columns)
        old, end = _walk(self.buffer, after[has_old] + 1, width)
        after[has_old] = end
        if any(values.same.any() for values in old):
            raise CaptureMissing(_NO_OLD_ROWS.format(table=self.relation.name))
        new, _ = _walk(self.buffer, after[has_new] + 1, width)
        # Of each new row: the place of its old one, where it has one.
        place = (np.cumsum(has_old) - 1)[has_new]
        updated = kind[has_new] == _U
        olds, news = {}, {}
        for number, name in enumerate(self.relation.columns):
            if name in names:
                olds[name] = _gather(self.buffer, old[number])
                written = _gather(self.buffer, new[number])
                news[name] = _fill(written, new[number].same, olds[name], place)
        for name in set(names) - set(olds):
            olds[name] = pa.nulls(int(has_old.sum()), pa.string())
            news[name] = pa.nulls(int(has_new.sum()), pa.string())
        moved = _differ(olds, news, key, place, updated)
        old_wanted = np.ones(int(has_old.sum()), bool) if images else kind[has_old] == _D
        old_wanted[place[moved]] = True
        new_wanted = moved | ~updated if images else np.ones(len(updated), bool)
        order, source, message = _order(has_old, has_new, old_wanted, new_wanted)
        ops = np.concatenate(
            [np.zeros(len(old_wanted), np.int8), np.where(updated & ~moved, 2, 1).astype(np.int8)]
        )[source][order]
        takes = pa.array(source[order])
        return Rows(
            {name: pa.concat_arrays([olds[name], news[name]]).take(takes) for name in names},
            pa.array([DELETE, INSERT, UPDATE]).take(pa.array(ops)),
            self.transactions.take(at[message[order]]),
        )


@dataclass
class Decoder:
    """Reads the stream of one table, chunk after chunk; a transaction may span several."""

    oid: int
    relation: Relation | None = None
    _open: tuple[int, int, int] = field(default=(0, 0, 0))

    def chunks(self, messages: list[Any], skip: int = 0) -> list[Chunk]:
        """Cut messages, each behind `skip` foreign bytes, where the table's description changes."""
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        buffer = np.frombuffer(b"".join(messages), np.uint8)
        start = np.cumsum(lengths) - lengths + skip
        kind = buffer[start]
        described = [
            (int(place), relation)
            for place in np.flatnonzero(kind == _R)
            if (relation := _relation(buffer, int(start[place]), self.oid)) is not None
        ]
        edges = [0, *(place for place, _ in described), len(messages)]
        chunks = []
        for number, (left, right) in enumerate(pairwise(edges)):
            if number:
                self.relation = described[number - 1][1]
            if right > left:
                chunks.append(self._chunk(buffer, kind[left:right], start[left:right]))
        return chunks

    def _chunk(self, buffer: Any, kind: Any, start: Ints) -> Chunk:
        begins = start[kind == _B]
        begun = Transactions(
            _number(buffer, begins + 1, 8),
            _number(buffer, begins + 9, 8) + _EPOCH_US,
            _number(buffer, begins + 17, 4),
        )
        known = Transactions(
            *(
                np.concatenate([[first], rest])
                for first, rest in zip(self._open, begun, strict=True)
            )
        )
        self._open = (int(known.lsn[-1]), int(known.at[-1]), int(known.xid[-1]))
        within = np.cumsum(kind == _B)
        changes = np.flatnonzero((kind == _I) | (kind == _U) | (kind == _D))
        changes = changes[_number(buffer, start[changes] + 1, 4) == self.oid]
        truncated = [
            known.lsn[within[place]]
            for place in np.flatnonzero(kind == _T)
            if self.oid in _truncated(buffer, int(start[place]))
        ]
        return Chunk(
            buffer, kind[changes], start[changes], known.take(within[changes]), begun,
            self.relation, np.array(truncated, np.int64),
        )  # fmt: skip


class _Values(NamedTuple):
    """A column's values in the buffer; `same` were not written again."""

    start: Ints
    end: Ints
    null: Any
    same: Any


def _number(buffer: Any, at: Ints, width: int) -> Ints:
    """Big-endian numbers of some bytes."""
    value = np.zeros(len(at), np.int64)
    for place in range(width):
        value = (value << 8) | buffer[at + place]
    return value


def _walk(buffer: Any, at: Ints, width: int) -> tuple[list[_Values], Ints]:
    """Where the values of tuples lie, column by column, and where the tuples end."""
    at = at + 2  # The number of columns is known.
    columns = []
    for _ in range(width):
        kind = buffer[at]
        text = kind == _TEXT
        start = np.where(text, at + 5, at)
        end = start.copy()
        end[text] += _number(buffer, at[text] + 1, 4)
        columns.append(_Values(start, end, kind == _NULL, kind == _SAME))
        at = np.where(text, end, at + 1)
    return columns, at


def _gather(buffer: Any, values: _Values) -> Any:
    """The values as Arrow strings: a view with the gaps between them, of which each second."""
    count = len(values.start)
    if not count:
        return pa.array([], pa.string())
    offsets: Any = np.empty(2 * count, np.int32)
    offsets[0::2], offsets[1::2] = values.start, values.end
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(buffer)]
    view = pa.Array.from_buffers(pa.string(), 2 * count - 1, buffers)
    each_second: Any = pa.array(np.arange(0, 2 * count, 2), mask=values.null)
    return view.take(each_second)


def _fill(new: Any, same: Any, old: Any, place: Any) -> Any:
    """Large values that an update left alone stand in the old row only."""
    if not same.any():
        return new
    return pc.replace_with_mask(new, pa.array(same), old.take(pa.array(place[same])))


def _differ(olds: Any, news: Any, key: list[str], place: Any, updated: Any) -> Any:
    """Which new rows are updates with another key than their old row."""
    moved = np.zeros(len(updated), bool)
    if updated.any():
        before = pa.array(place[updated])
        now = pa.array(np.flatnonzero(updated))
        for name in key:
            same = pc.equal(olds[name].take(before), news[name].take(now))
            moved[updated] |= ~pc.fill_null(same, False).to_numpy(zero_copy_only=False)
    return moved


def _order(has_old: Any, has_new: Any, old_wanted: Any, new_wanted: Any) -> tuple[Ints, Ints, Ints]:
    """How to order wanted old and new rows by message, the old one first.

    Returns the order, the rows' places among old and new ones, and their messages.
    """
    messages = np.concatenate([np.flatnonzero(has_old), np.flatnonzero(has_new)])
    source = np.flatnonzero(np.concatenate([old_wanted, new_wanted]))
    message = messages[source]
    return np.argsort(message, kind="stable"), source, message


def _relation(buffer: Any, at: int, oid: int) -> Relation | None:
    """A description, if it is that of the table with the number `oid`."""
    if int.from_bytes(buffer[at + 1 : at + 5].tobytes(), "big") != oid:
        return None
    text = buffer[at + 5 : at + 5 + 2 * 64 + 4 + 1664 * 73].tobytes()
    _, name, text = text.split(b"\0", 2)
    count, text = int.from_bytes(text[1:3], "big"), text[3:]
    columns = {}
    for _ in range(count):
        column, text = text[1:].split(b"\0", 1)
        kind, modifier = (int.from_bytes(text[n : n + 4], "big", signed=bool(n)) for n in (0, 4))
        columns[column.decode()] = (kind, modifier)
        text = text[8:]
    return Relation(name.decode(), columns)


def _truncated(buffer: Any, at: int) -> Ints:
    """The tables that a message says were truncated."""
    count = int(_number(buffer, np.array([at + 1]), 4)[0])
    return _number(buffer, at + 6 + 4 * np.arange(count), 4)
