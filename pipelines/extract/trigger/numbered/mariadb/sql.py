"""The SQL of one captured table in MariaDB and MySQL: the table of its changes and the triggers.

InnoDB has no function that names a transaction or tells which are open. Two things stand in:

- Each writer holds one of 16 rows of `gates` locked in share mode until its transaction ends,
  and takes it before it draws a number. A gate that can be locked for an instant, without waiting,
  has no open writer; once each was seen free, the numbers missing before are dead.
- The last GTID that a session committed tells its transaction from its next one (MySQL: the
  transaction's event). Later statements are noted in `spans`, so that a transaction which goes on
  beyond an interval's end waits for the next interval, whole.

Should a change not be capturable (say, a declared column was dropped), the shop's write goes on and
the failure is noted in `faults`: extraction then stops until capture is installed again.

What is installed is compared with this SQL letter by letter: where it changes, every shop has to
install capture again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.extract.trigger.numbered.sql import LogTable, housekeeping, prefix, quoted
from pipelines.shared.columns import (
    CHANGE_COLUMNS,
    COMMITTED_AT,
    DELETE,
    INSERT,
    OP,
    POSITION,
    TRANSACTION,
    UPDATE,
)

EVENTS = ("insert", "update", "delete")
GATES = 16
HOUSEKEEPING = {
    "captures": "table_name varchar(64) PRIMARY KEY, log char(36) NOT NULL, "
    "identity bigint NOT NULL, definition longtext NOT NULL",
    "faults": "id bigint AUTO_INCREMENT PRIMARY KEY, table_name varchar(64) NOT NULL, "
    "message text, noted_at datetime(6) NOT NULL, KEY (table_name)",
    "gates": "slot int PRIMARY KEY",
    "spans": "id bigint AUTO_INCREMENT PRIMARY KEY, tx bigint NOT NULL, at bigint NOT NULL, "
    "KEY (at), KEY (tx, at)",
}
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"}


@dataclass(frozen=True)
class MariadbTable(LogTable):
    """Names and SQL for one table, given the types that its columns have."""

    kinds: Mapping[str, tuple[Any, ...]]
    """Column → type in full, character set, collation, type."""
    mariadb: bool
    """MariaDB rather than MySQL."""

    def same(self, name: str, left: str, right: str) -> str:
        """Texts are compared by their bytes: a collation takes `a` for `A`."""
        column = quoted(name)
        if self.kinds[name][3] in _TEXTS:
            return f"BINARY {left}.{column} <=> BINARY {right}.{column}"
        return f"{left}.{column} <=> {right}.{column}"

    def moment(self, value: str) -> str:
        """DATETIME has no zone and is read as UTC; a TIMESTAMP is read in the session's zone."""
        name = self.declared.commit_time
        if name is not None and self.kinds[name][3] == "timestamp":
            return f"CAST(UNIX_TIMESTAMP({value}) * 1000000 AS SIGNED)"
        return f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {value})"

    def create_changes(self) -> str:
        """Create the table of changes, its columns typed as the table's own."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self.changes} ("
            f"{POSITION} bigint AUTO_INCREMENT PRIMARY KEY, {TRANSACTION} bigint NOT NULL, "
            f"{OP} varchar(6) CHARACTER SET ascii NOT NULL, {COMMITTED_AT} bigint NOT NULL, "
            f"{', '.join(map(self._column, self.stored))}, "
            f"KEY ({COMMITTED_AT}), KEY ({TRANSACTION}, {COMMITTED_AT})) ENGINE = InnoDB"
        )

    def fit_columns(self, present: Mapping[str, tuple[Any, ...]]) -> str:
        """Give the table of changes the columns that are stored now, and no other."""
        steps = [
            f"DROP COLUMN {quoted(name)}"
            for name in present
            if name not in {*CHANGE_COLUMNS, *self.stored}
        ]
        for name in self.stored:
            if present.get(name) != self.kinds[name]:
                what = "MODIFY" if name in present else "ADD"
                steps.append(f"{what} COLUMN {self._column(name)}")
        return f"ALTER TABLE {self.changes} {', '.join(steps)}" if steps else ""

    def create_triggers(self) -> list[str]:
        """Create the three triggers."""
        # MariaDB fires for a row that UPDATE IGNORE left as it was, too.
        left = f"EXISTS (SELECT 1 FROM {self.source} AS s WHERE {self.near_key('s', 'OLD')}"
        updated = (
            f"IF {self.same_key('OLD', 'NEW')} THEN IF NOT ({self.same_row('OLD', 'NEW')}) "
            f"AND NOT {left} AND {self.same_row('s', 'OLD')}) THEN "
            f"{self._write(UPDATE, 'NEW')} END IF; "
            f"ELSEIF NOT {left}) THEN "
            f"{self._write(DELETE, 'OLD')} {self._write(INSERT, 'NEW')} END IF;"
        )
        bodies = {
            "insert": self._write(INSERT, "NEW"),
            "update": updated,
            "delete": self._write(DELETE, "OLD"),
        }
        return [
            f"CREATE TRIGGER {quoted(self.trigger(event))} AFTER {event} ON {self.source} "
            f"FOR EACH ROW BEGIN {self._opening()} {body} END"
            for event, body in bodies.items()
        ]

    @property
    def definition(self) -> str:
        """What is installed for the table."""
        return " ".join([self.create_changes(), *self.create_triggers()])

    def _column(self, name: str) -> str:
        written, charset, collation, _ = self.kinds[name]
        encoded = f" CHARACTER SET {charset} COLLATE {collation}" if charset else ""
        return f"{quoted(name)} {written}{encoded} NULL"

    def _opening(self) -> str:
        """What each trigger begins with: the fault's handler, the gate, the transaction."""
        tx, of, at = (f"@{prefix(self.shop)}{name}" for name in ("tx", "of", "at"))
        faults = housekeeping(self.shop, "faults")
        event = (
            "@@in_transaction, @@last_gtid, "
            "IF(@@in_transaction AND @@log_bin AND @@sql_log_bin, '', UTC_TIMESTAMP(6))"
            if self.mariadb
            else "(SELECT e.event_id FROM performance_schema.events_transactions_current AS e "
            "WHERE e.thread_id = PS_CURRENT_THREAD_ID())"
        )
        return (
            "DECLARE gate int; DECLARE told text; DECLARE token varchar(100); "
            "DECLARE clock bigint DEFAULT "
            "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)); "
            "DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN "
            "DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN END; "
            "GET DIAGNOSTICS CONDITION 1 told = MESSAGE_TEXT; "
            f"INSERT INTO {faults} (table_name, message, noted_at) "
            f"VALUES ('{self.table}', told, UTC_TIMESTAMP(6)); END; "
            f"SELECT slot INTO gate FROM {housekeeping(self.shop, 'gates')} "
            f"WHERE slot = CONNECTION_ID() % {GATES} LOCK IN SHARE MODE; "
            f"SET token = CONCAT_WS(' ', {event}); "
            f"IF NOT ({of} <=> token) THEN "
            f"SET {of} = token, {tx} = UUID_SHORT() & 9223372036854775807, {at} = clock; "
            f"ELSEIF NOT ({at} <=> clock) THEN "
            f"INSERT INTO {housekeeping(self.shop, 'spans')} (tx, at) VALUES ({tx}, clock); "
            f"SET {at} = clock; END IF;"
        )

    def _write(self, op: str, row: str) -> str:
        return (
            f"INSERT INTO {self.changes} ({OP}, {COMMITTED_AT}, {TRANSACTION}, {self.names}) "
            f"VALUES ('{op}', {self.stamp(row, 'clock', op)}, @{prefix(self.shop)}tx, "
            f"{self.values(row)});"
        )
