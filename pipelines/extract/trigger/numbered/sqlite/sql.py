"""The SQL of one captured table in SQLite: the table of its changes and the triggers.

SQLite has one writer at a time: the order of the numbers is the order of the commits, and no number
is missing. REPLACE removes rows without their delete triggers, unless the writer has switched on
`recursive_triggers`. So before an insert or update, the rows that it would replace are noted in
`freshrank_<shop>_replaced_<table>`; after it, those that are gone are deletes.

The log keeps values as they are, without a type of its own, so that writing a change does not fail
where the shop's own write succeeded.

What is installed is compared with this SQL letter by letter: where it changes, every shop has to
install capture again.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.extract.trigger.numbered.sql import LogTable, housekeeping, prefix, quoted
from pipelines.shared.columns import (
    COMMITTED_AT,
    DELETE,
    INSERT,
    OP,
    POSITION,
    TRANSACTION,
    UPDATE,
)

HOUSEKEEPING = {
    "captures": "table_name PRIMARY KEY, log NOT NULL, definition NOT NULL",
    "clock": "at INTEGER NOT NULL",
}
TRIGGERS = {
    "before_insert": "BEFORE INSERT",
    "insert": "AFTER INSERT",
    "before_update": "BEFORE UPDATE",
    "update": "AFTER UPDATE",
    "delete": "AFTER DELETE",
}
NOW = (
    "CAST(strftime('%s', 'now') AS INTEGER) * 1000000 "
    "+ CAST(substr(strftime('%f', 'now'), 4, 3) AS INTEGER) * 1000"
)


@dataclass(frozen=True)
class SqliteTable(LogTable):
    """Names and SQL for one table, given its unique indexes."""

    uniques: tuple[tuple[str, ...], ...]
    """Columns of each."""

    def same(self, name: str, left: str, right: str) -> str:
        """Letter for letter, whatever the column's collation."""
        return f"{left}.{quoted(name)} IS {right}.{quoted(name)} COLLATE BINARY"

    def moment(self, value: str) -> str:
        """A time is a text in UTC with or without a fraction; one with a zone to a thousandth."""
        fraction = f"CASE WHEN substr({value}, 20, 1) = '.' THEN substr({value}, 21) ELSE '' END"
        return (
            f"CASE WHEN substr({value}, 20) GLOB '*[^.0-9]*' "
            f"THEN CAST(round((julianday({value}) - 2440587.5) * 86400000) AS INTEGER) * 1000 "
            f"ELSE CAST(strftime('%s', substr({value}, 1, 19)) AS INTEGER) * 1000000 "
            f"+ CAST(substr({fraction} || '000000', 1, 6) AS INTEGER) END"
        )

    @property
    def replaced(self) -> str:
        """Rows that the running statement may replace."""
        return quoted(f"{prefix(self.shop)}replaced_{self.table}")

    @property
    def clock(self) -> str:
        """The commit time of a change without one of its own, in microseconds."""
        return f"coalesce((SELECT max(at) FROM {housekeeping(self.shop, 'clock')}), {NOW})"

    def create_changes(self) -> list[str]:
        """Create the table of changes, with the index that bounds what an extraction reads."""
        index = quoted(f"{prefix(self.shop)}changes_{self.table}_at")
        return [
            f"CREATE TABLE IF NOT EXISTS {self.changes} ("
            f"{POSITION} INTEGER PRIMARY KEY AUTOINCREMENT, {TRANSACTION} INTEGER NOT NULL, "
            f"{OP} TEXT NOT NULL, {COMMITTED_AT} INTEGER NOT NULL, {self.names})",
            f"CREATE INDEX IF NOT EXISTS {index} ON {self.changes} ({COMMITTED_AT})",
        ]

    def create_triggers(self) -> list[str]:
        """Create the triggers, and the table of rows that a REPLACE may remove."""
        clear = f"DELETE FROM {self.replaced};"
        clash = (
            " OR ".join(
                "(" + " AND ".join(f"r.{quoted(n)} = NEW.{quoted(n)}" for n in names) + ")"
                for names in self.uniques
            )
            or "0"
        )
        note = (
            f"INSERT INTO {self.replaced} SELECT {self.values('r')} FROM {self.source} AS r "
            f"WHERE ({clash})"
        )
        gone = self._write(
            DELETE, "p",
            f"FROM {self.replaced} AS p WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self.source} AS r WHERE {self.near_key('r', 'p')})",
        )  # fmt: skip
        before = f"FROM {self.replaced} AS p WHERE {self.same_key('p', 'NEW')}"

        def added(where: str) -> str:
            changed = f"NOT ({self.same_row('p', 'NEW')})"
            return self._write(
                INSERT, "NEW", f"WHERE {where} AND NOT EXISTS (SELECT 1 {before})"
            ) + self._write(
                UPDATE, "NEW", f"WHERE {where} AND EXISTS (SELECT 1 {before} AND {changed})"
            )

        same = self.same_key("OLD", "NEW")
        updated = (
            self._write(UPDATE, "NEW", f"WHERE {same} AND NOT ({self.same_row('OLD', 'NEW')})")
            + self._write(DELETE, "OLD", f"WHERE NOT ({same})")
            + added(f"NOT ({same})")
        )
        bodies = {
            "before_insert": f"{clear} {note};",
            "insert": f"{gone} {added('1')} {clear}",
            "before_update": f"{clear} {note} AND NOT ({self.same_key('r', 'OLD')});",
            "update": f"{gone} {updated} {clear}",
            "delete": self._write(DELETE, "OLD", "")
            + f"DELETE FROM {self.replaced} WHERE {self.same_key(self.replaced, 'OLD')};",
        }
        triggers = [
            f"CREATE TRIGGER {quoted(self.trigger(name))} {TRIGGERS[name]} ON {self.source} "
            f"FOR EACH ROW BEGIN {body} END"
            for name, body in bodies.items()
        ]
        return [f"CREATE TABLE {self.replaced} ({self.names})", *triggers]

    def drop(self) -> list[str]:
        """Drop the triggers and their table."""
        names = [quoted(self.trigger(name)) for name in TRIGGERS]
        return [
            *(f"DROP TRIGGER IF EXISTS {name}" for name in names),
            f"DROP TABLE IF EXISTS {self.replaced}",
        ]

    @property
    def definition(self) -> str:
        """What is installed for the table."""
        return " ".join([*self.create_changes(), *self.create_triggers()])

    def _write(self, op: str, row: str, where: str) -> str:
        stamp = self.stamp(row, self.clock, op)
        return (
            f"INSERT INTO {self.changes} ({OP}, {COMMITTED_AT}, {TRANSACTION}, {self.names}) "
            f"SELECT '{op}', {stamp}, {self.clock}, {self.values(row)} {where}; "
        )
