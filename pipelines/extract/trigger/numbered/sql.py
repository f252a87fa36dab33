"""The SQL of one table of changes, in databases without PostgreSQL's snapshots.

For each captured table `t`, triggers append to `freshrank_<shop>_changes_t`, which numbers the
changes. `source` says how a position is read from the numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.extract.source import Position, microseconds
from pipelines.shared.columns import (
    COMMITTED_AT,
    DELETE,
    INSERT,
    OP,
    POSITION,
    TRANSACTION,
    UPDATE,
)
from pipelines.shared.declaration import Shop, Table
from pipelines.shared.errors import DeclarationError
from pipelines.shared.intervals import utc

MAX_NAME = 64
"""Letters of a MySQL name."""


def prefix(shop: Shop) -> str:
    """Begins the name of everything that capture adds to the shop's database."""
    return f"{shop.footprint}_"


def housekeeping(shop: Shop, name: str) -> str:
    """A table of capture's own: captures, faults, and so on."""
    return quoted(f"{prefix(shop)}{name}")


def quoted(name: str) -> str:
    """A name as MySQL and SQLite both read it."""
    return f"`{name}`"


@dataclass(frozen=True)
class LogNames:
    """Names of a captured table's log; the table may be declared no longer.

    Raises:
        DeclarationError: a name would be longer than the databases allow.
    """

    shop: Shop
    table: str

    def __post_init__(self) -> None:
        for name in (f"{prefix(self.shop)}changes_{self.table}", self.trigger("before_insert")):
            if len(name) > MAX_NAME:
                raise DeclarationError(
                    f"the name {name} has more than {MAX_NAME} letters; change capture needs a "
                    f"shorter name for the shop {self.shop.shop} or its table {self.table}"
                )

    @property
    def source(self) -> str:
        """The captured table."""
        return quoted(self.table)

    @property
    def changes(self) -> str:
        """The table of its changes."""
        return quoted(f"{prefix(self.shop)}changes_{self.table}")

    def trigger(self, event: str) -> str:
        """Name of the trigger for an event."""
        return f"{prefix(self.shop)}{self.table}_{event}"


@dataclass(frozen=True)
class LogTable(LogNames, ABC):
    """Names and SQL for one captured table."""

    @abstractmethod
    def same(self, name: str, left: str, right: str) -> str:
        """Whether a column holds the very same value in two rows, null or not."""

    @abstractmethod
    def moment(self, value: str) -> str:
        """A column of times in microseconds since 1970."""

    @property
    def declared(self) -> Table:
        """Its declaration."""
        return self.shop.tables[self.table]

    @property
    def stored(self) -> list[str]:
        """Stored columns: what is declared `drop` never leaves its table."""
        return list(self.declared.stored_columns())

    @property
    def names(self) -> str:
        """Stored columns, as a list."""
        return ", ".join(map(quoted, self.stored))

    def values(self, row: str) -> str:
        """Stored columns of a row."""
        return ", ".join(f"{row}.{quoted(name)}" for name in self.stored)

    def same_key(self, left: str, right: str) -> str:
        """Whether two rows have the same key, letter for letter."""
        return " AND ".join(self.same(name, left, right) for name in self.declared.key)

    def near_key(self, left: str, right: str) -> str:
        """The same in a way that an index can look up."""
        key = map(quoted, self.declared.key)
        equal = " AND ".join(f"{left}.{name} = {right}.{name}" for name in key)
        return f"{equal} AND {self.same_key(left, right)}"

    def same_row(self, left: str, right: str) -> str:
        """Whether two rows are the same in their stored columns."""
        return " AND ".join(self.same(name, left, right) for name in self.stored)

    def stamp(self, row: str, clock: str, op: str) -> str:
        """Commit time of a change: the row's own where one is declared, else the clock's.

        A row's own time tells when it last changed; it was deleted no earlier than that.
        """
        if self.declared.commit_time is None:
            return clock
        own = self.moment(f"{row}.{quoted(self.declared.commit_time)}")
        if op == DELETE:
            return f"CASE WHEN {own} > {clock} THEN {own} ELSE {clock} END"
        return f"coalesce({own}, {clock})"

    @property
    def aliases(self) -> tuple[str, str, str]:
        """What `catch_up` calls the captured table, and its changes twice."""
        return f"r_{self.table}", f"k_{self.table}", f"l_{self.table}"

    def catch_up(self, clock: int, number: str) -> list[str]:
        """Write what leads from the captured state to the table as it is now."""
        row, kept, last = self.aliases
        keys = ", ".join(map(quoted, self.declared.key))
        known = (
            f"(SELECT {kept}.* FROM {self.changes} AS {kept} JOIN (SELECT max({POSITION}) AS last_ "
            f"FROM {self.changes} AS {last} GROUP BY {keys}) AS m "
            f"ON m.last_ = {kept}.{POSITION} WHERE {kept}.{OP} <> '{DELETE}')"
        )
        into = f"INSERT INTO {self.changes} ({OP}, {COMMITTED_AT}, {TRANSACTION}, {self.names})"
        present = f"{self.source} AS {row}"
        same = self.near_key(row, "o")
        gone, came = self.stamp("o", str(clock), DELETE), self.stamp(row, str(clock), INSERT)
        return [
            f"{into} SELECT '{DELETE}', {gone}, {number}, {self.values('o')} FROM {known} AS o "
            f"WHERE NOT EXISTS (SELECT 1 FROM {present} WHERE {same}) ORDER BY {self._keys('o')}",
            f"{into} SELECT CASE WHEN o.{POSITION} IS NULL THEN '{INSERT}' ELSE '{UPDATE}' END, "
            f"{came}, {number}, {self.values(row)} FROM {present} "
            f"LEFT JOIN {known} AS o ON {same} "
            f"WHERE o.{POSITION} IS NULL OR NOT ({self.same_row(row, 'o')}) "
            f"ORDER BY {self._keys(row)}",
        ]

    def due(
        self, before: int, after: Position | None, upto: Position | None, held: list[int]
    ) -> str:
        """Places and transactions of the changes to extract."""
        wanted = f"{COMMITTED_AT} < {before:d}"
        if held:
            wanted += f" AND {TRANSACTION} NOT IN ({_listed(held)})"
        if upto is not None:
            wanted += f" AND {POSITION} <= {upto['high']:d} AND NOT ({_ranges(upto['open'])})"
        pieces = [wanted] if after is None else list(_not_extracted(wanted, after))
        return " UNION ALL ".join(
            f"SELECT {POSITION}, {TRANSACTION} FROM {self.changes} WHERE {piece}"
            for piece in pieces
        )

    def overtaken(self, position: Position) -> str:
        """Places of the changes extracted at a position that nothing needs any more.

        The last change of each row that is there stays: by it capture catches up after it was off.
        """
        keys = ", ".join(map(quoted, self.declared.key))
        end, high = microseconds(utc(position["end"])), position["high"]
        extracted = (
            f"{COMMITTED_AT} < {end:d} AND {POSITION} <= {high:d} "
            f"AND NOT ({_ranges(position['open'])})"
        )
        if position["held"]:
            extracted += f" AND {TRANSACTION} NOT IN ({_listed(position['held'])})"
        return (
            f"SELECT {POSITION} FROM (SELECT {POSITION}, {OP}, extracted, "
            f"row_number() OVER (PARTITION BY {keys} ORDER BY {POSITION} DESC) AS age, "
            f"min(extracted) OVER (PARTITION BY {keys}) AS all_extracted "
            f"FROM (SELECT {POSITION}, {OP}, {keys}, CASE WHEN {extracted} THEN 1 ELSE 0 END "
            f"AS extracted FROM {self.changes}) AS c) AS k "
            f"WHERE extracted = 1 AND (age > 1 OR ({OP} = '{DELETE}' AND all_extracted = 1))"
        )

    def stamped_after(self, end: int, most: int) -> str:
        """Keys and commit times of rows whose last change is stamped after a time."""
        keys = ", ".join(f"a.{quoted(name)}" for name in self.declared.key)
        return (
            f"SELECT {keys}, a.{COMMITTED_AT} FROM {self.changes} AS a "
            f"WHERE a.{COMMITTED_AT} > {end:d} AND NOT EXISTS (SELECT 1 FROM {self.changes} AS l "
            f"WHERE {self.same_key('l', 'a')} AND l.{POSITION} > a.{POSITION}) "
            f"ORDER BY a.{COMMITTED_AT}, a.{POSITION} LIMIT {most:d}"
        )

    def without(self, places: list[int]) -> str:
        """Delete some changes."""
        return f"DELETE FROM {self.changes} WHERE {POSITION} IN ({_listed(places)})"

    def gaps(self, low: int) -> str:
        """Numbers above `low` that are missing, as ranges with both ends."""
        return (
            f"SELECT before_ + 1, {POSITION} - 1 FROM (SELECT {POSITION}, "
            f"coalesce(lag({POSITION}) OVER (ORDER BY {POSITION}), {low:d}) AS before_ "
            f"FROM {self.changes} WHERE {POSITION} > {low:d}) AS n "
            f"WHERE {POSITION} > before_ + 1 ORDER BY 1"
        )

    def _keys(self, row: str) -> str:
        return ", ".join(f"{row}.{quoted(name)}" for name in self.declared.key)


def _not_extracted(wanted: str, after: Position) -> Iterator[str]:
    """What is wanted less what was extracted, in parts that each have an index."""
    end, high = microseconds(utc(after["end"])), after["high"]
    yield f"{wanted} AND {COMMITTED_AT} >= {end:d}"
    yield f"{wanted} AND {COMMITTED_AT} < {end:d} AND {POSITION} > {high:d}"
    if after["open"]:
        yield f"{wanted} AND {COMMITTED_AT} < {end:d} AND ({_ranges(after['open'])})"
    if after["held"]:
        yield (
            f"{wanted} AND {COMMITTED_AT} < {end:d} AND {POSITION} <= {high:d} "
            f"AND NOT ({_ranges(after['open'])}) AND {TRANSACTION} IN ({_listed(after['held'])})"
        )


def _ranges(spans: list[list[int]]) -> str:
    return " OR ".join(f"{POSITION} BETWEEN {a:d} AND {b:d}" for a, b in spans) or "1 = 0"


def _listed(numbers: list[int]) -> str:
    return ", ".join(f"{number:d}" for number in numbers)
