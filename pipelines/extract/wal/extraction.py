"""One extraction of one table from the log: its copy of the slot, its position and its batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from pipelines.extract.databases.postgres import catalogue, values
from pipelines.extract.databases.postgres.copy import FIELD, copied
from pipelines.extract.databases.postgres.types import unfit
from pipelines.extract.databases.values import Misfits
from pipelines.extract.pseudonyms import pseudonymise
from pipelines.extract.schema import compare
from pipelines.extract.source import Position, change_schema, microseconds
from pipelines.extract.wal.pgoutput import Chunk, Decoder, Ints, Relation, Rows, Transactions
from pipelines.extract.wal.slot import FRESH_START, Log, Slot, open_database, publication
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import CaptureMissing, SchemaDrift, SourceUnavailable

STEP = 500_000
"""Changes that the server decodes at once, and keeps in a temporary file beyond work_mem; a
larger transaction is one step."""

DECODING_MEMORY = "256MB"
"""What the server may hold of unfinished transactions before it writes them to disk: with its
default of 64MB a large one takes three times as long."""

_MARK = "SELECT pg_logical_emit_message(true, 'freshrank', '')"
HERE = """
    SELECT pg_current_wal_flush_lsn() - '0/0',
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""
_COPY_SLOT = "SELECT pg_copy_logical_replication_slot(%s, %s, true)"
_CHANGES = """
    COPY (SELECT data FROM pg_logical_slot_get_binary_changes(
              {slot}, '0/0'::pg_lsn + {upto}, {step}, 'proto_version', '1',
              'publication_names', {publication}, 'messages', 'true')
          WHERE get_byte(data, 0) IN (66, 82, 84)  -- begin, relation, truncate
                OR get_byte(data, 0) IN (68, 73, 85) AND substring(data, 2, 4) = {relation})
    TO STDOUT (FORMAT binary)
"""


@dataclass
class Extraction:
    """What following the log and a first snapshot share; it lasts for a block."""

    url: str
    shop: Shop
    table: str
    key: bytes
    """Of the pseudonyms."""
    log: Log
    before: datetime
    """The interval's end."""
    upto: Position | None
    """Where an earlier extraction of the interval ended."""
    place: int
    """`_position` of the next change."""
    plain: Any
    reader: Any
    """A connection that reads the log, and nothing else; `plain` is for the rest."""

    def __post_init__(self) -> None:
        self.declared = self.shop.tables[self.table]
        self.names = list(self.declared.stored_columns())
        self.position: dict[str, Any] = {}
        """Where the next extraction goes on, once all changes were read."""
        self._checked: Relation | None = None
        self._newest_xid = 0
        self.end = 0
        """Where reading the log ends, at the latest; see `mark`."""
        columns = catalogue.columns_of(self.plain, self.shop.source.schema_name, self.table)
        self._padded = {name for name, column in columns.items() if column.type == "bpchar"}
        generated = catalogue.generated(self.plain, self.log.oid)
        self._present = {name: each for name, each in columns.items() if name not in generated}
        """Columns that the table has now and that its log can carry."""
        self.plain.commit()
        self._copy = f"freshrank_{uuid4().hex}"

    def copy_slot(self, slot: Slot, start: int | None) -> None:
        """Make a temporary copy of the slot, to be read from a start, else from where it stands."""
        self.reader.autocommit = True
        self.reader.execute(f"SET logical_decoding_work_mem = '{DECODING_MEMORY}'")
        self.reader.execute(_COPY_SLOT, [slot.name, self._copy])
        if start is not None and start > slot.confirmed:
            move = "SELECT pg_replication_slot_advance(%s, '0/0'::pg_lsn + %s)"
            self.reader.execute(move, [self._copy, start])

    def mark(self) -> None:
        """Make sure that the log shows an end of the interval, and learn where it ends itself."""
        with open_database(self.url) as connection:
            if self.upto is None:
                # Also flushes asynchronous commits, which cannot be read before.
                connection.execute("SET LOCAL synchronous_commit = local")
                connection.execute(_MARK)
                connection.commit()
            end, self._newest_xid = connection.execute(HERE).fetchone()
        self.end = int(end if self.upto is None else self.upto["lsn"])

    def chunks(self) -> Iterator[Chunk]:
        """The table's changes and every transaction's beginning, step by step."""
        decoder = Decoder(self.log.oid)
        query = sql.SQL(_CHANGES).format(
            slot=sql.Literal(self._copy),
            upto=sql.Literal(self.end),
            step=sql.Literal(STEP),
            publication=sql.Literal(f'"{publication(self.shop)}"'),
            relation=sql.Literal(self.log.oid.to_bytes(4, "big")),
        )
        begun = True
        while begun:
            begun = False
            for messages in copied(self.reader, query, binary=True):
                for chunk in decoder.chunks(messages, FIELD):
                    begun = begun or len(chunk.begun.lsn) > 0
                    if chunk.relation is not self._checked:
                        self._checked = chunk.relation
                        self._check(chunk.relation)
                    yield chunk

    def _check(self, relation: Relation | None) -> None:
        """Make sure that the table was as declared, too, when the log was written."""
        if relation is None:
            return
        logged = catalogue.logged(self.plain, relation.columns)
        if set(logged) <= set(self._present):
            # Nothing was dropped or renamed since: what is missing was added later.
            logged = {**self._present, **logged}
        if faults := compare(self.shop, self.table, logged, unfit):
            raise SchemaDrift(
                f"the log holds changes of {self.table} from when it was otherwise: "
                f"{'; '.join(faults)}. Declare it as it was until these are extracted, or "
                f"{FRESH_START}"
            )

    def stop(self, begun: Transactions, start: int) -> int | None:
        """Commit position of the first transaction that is not of this interval."""
        if self.upto is not None:
            over = begun.lsn >= int(self.upto["lsn"])
        else:
            over = (begun.at >= microseconds(self.before)) & (begun.lsn >= start)
        return int(begun.lsn[over.argmax()]) if over.any() else None

    def at_end(self) -> int:
        """The place to stop at where the log showed no later transaction.

        Raises:
            SourceUnavailable: the interval may still get changes.
        """
        if self.upto is not None:
            return int(self.upto["lsn"])
        raise SourceUnavailable(
            f"the server's clock has not reached {self.before.isoformat()}, so the interval may "
            "still get changes; run again after that"
        )

    def refuse_truncate(self, chunk: Chunk, start: int, stop: int | None) -> None:
        """Make sure that nobody truncated the table between two places in the log.

        Raises:
            CaptureMissing: somebody did.
        """
        lsn = chunk.truncated
        lsn = lsn[(lsn >= start) & (lsn < (stop if stop is not None else np.iinfo(np.int64).max))]
        if len(lsn):
            raise CaptureMissing(
                f"{self.table} was truncated (log position {written(int(lsn[0]))}), and the log "
                "does not say which rows that deleted; use DELETE or `capture: trigger` where "
                f"that happens, and now {FRESH_START}"
            )

    def finish(self, stop: int) -> None:
        """Complete the position: the next extraction goes on from a place in the log."""
        self.position.update(
            log=self.log.id, lsn=stop, next=self.place, end=self.before.isoformat()
        )

    def batches(self, rows: Rows, full_ids: bool = False) -> Iterator[pa.RecordBatch]:
        """Changes in declared types, numbered on; none without rows. `full_ids` have 64 bits."""
        count = len(rows.op)
        if not count:
            return
        schema = change_schema(self.declared)
        misfits = Misfits(self.declared, count)
        arrays = [
            self._array(schema.field(name), rows.columns[name], misfits) for name in self.names
        ]
        arrays.append(misfits.array())
        xids = rows.transactions.xid if full_ids else self.full_ids(rows.transactions.xid)
        arrays += [
            rows.op,
            pa.array(rows.transactions.at).cast(pa.timestamp("us", "UTC")),
            pa.array(np.arange(self.place, self.place + count)),
            pa.array(xids),
        ]
        self.place += count
        yield pa.record_batch(arrays, schema=schema)

    def _array(self, field: Any, texts: Any, misfits: Misfits) -> Any:
        if field.name in self._padded:
            texts = pc.utf8_rtrim(texts, " ")
        if self.declared.personal.get(field.name) == "pseudonymise":
            return pseudonymise(texts, self.key)
        return misfits.fitted(field.name, texts, lambda some: values.parse(some, field.type))

    def full_ids(self, xid: Ints) -> Ints:
        """Transaction ids of 64 bits: the log has the lower 32."""
        newest = int(self._newest_xid)
        xid = xid + (newest & ~0xFFFFFFFF)
        return np.where(xid - newest > 1 << 31, xid - (1 << 32), xid)


def written(place: int) -> str:
    """A place in the log as PostgreSQL writes it."""
    return f"{place >> 32:X}/{place & 0xFFFFFFFF:X}"
