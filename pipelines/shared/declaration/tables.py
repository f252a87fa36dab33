"""The shop's databases and tables, and how their changes are captured."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

import pyarrow as pa
from pydantic import Field, PrivateAttr, model_validator

from pipelines.shared.declaration.base import Declared, Name, require
from pipelines.shared.declaration.column_types import OPAQUE, arrow_type


class Source(Declared):
    """One of the shop's databases, and how changes of its tables are captured."""

    connection: Name
    """Name of the connection whose URL Airflow (`freshrank_<name>`) or the environment
    (`FRESHRANK_CONNECTIONS__<NAME>`) gives."""
    capture: Literal["trigger", "cursor", "wal", "binlog"] = "trigger"
    """Capture mode: `trigger`, a table that row triggers write; `wal`, PostgreSQL's log; `binlog`,
    that of MariaDB and MySQL; `cursor`, a column of each table that every write increases."""
    schema_name: Name = Field(default="public", alias="schema")
    """Schema of the tables. On MariaDB and MySQL the name of the database; SQLite has none."""
    snapshot: Annotated[int, Field(ge=1)] = 1
    """Increase by one to take a fresh snapshot of every table, for example after the binlog was
    purged. Only with `binlog`."""


class Cursor(Declared):
    """How changed rows are found without triggers or logs."""

    column: Name
    """Column that every write increases: a time, or a number from one sequence for the whole
    table."""
    lag_s: Annotated[float, Field(ge=0)] | None = None
    """Overlap in seconds: rows this far behind the last cursor are read again. Default 300. Only
    with a column of times."""
    lag_n: Annotated[int, Field(ge=0)] | None = None
    """Overlap in numbers: rows this far behind the last cursor are read again. Default 10,000. Only
    with a column of numbers."""
    deleted: Name | None = None
    """Column that marks a deleted row: a boolean that is true, or a time that is not null."""
    reconcile: bool = False
    """Whether each extraction compares all keys, which finds rows that were deleted and rows that
    were committed later than the overlap."""

    @property
    def lag(self) -> timedelta:
        """The overlap of a column of times."""
        return timedelta(seconds=300 if self.lag_s is None else self.lag_s)

    @property
    def lag_numbers(self) -> int:
        """The overlap of a column of numbers."""
        return 10_000 if self.lag_n is None else self.lag_n


class Table(Declared):
    """One captured table."""

    key: Annotated[list[Name], Field(min_length=1)]
    """Columns that together identify a row."""
    columns: Annotated[dict[Name, str], Field(min_length=1)]
    """Column → type, for every column that is captured."""
    commit_time: Name | None = None
    """Column with the time at which a row was committed. Without it the database's clock, its log
    or the cursor gives the time."""
    personal: dict[Name, Literal["drop", "pseudonymise"]] = Field(default_factory=dict)
    """Column → what happens to its values before anything is written: `drop`, or `pseudonymise` by
    a keyed hash."""
    ignore: list[Name] = Field(default_factory=list)
    """Columns of the source that are not captured."""
    new_columns: Literal["refuse", "ignore", "take"] = "refuse"
    """What happens to a column of the source that is neither declared nor ignored: `refuse`,
    extraction stops; `ignore`, it is not captured; `take`, it is captured with the type that the
    source gives."""
    source: Name | None = None
    """Name of the source that has the table; required where the shop has several."""
    cursor: Cursor | None = None
    """How changed rows are found; required exactly where the source declares `capture: cursor`."""
    _auto_added: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        for name, kind in self.columns.items():
            try:
                arrow_type(kind)
            except ValueError as error:
                raise ValueError(f"columns.{name}: {error}") from None
        for field, names in (("key", self.key), ("personal", self.personal)):
            for name in names:
                require(name, self.columns, f"{field}: ", "a column of this table")
        if self.commit_time is not None:
            require(self.commit_time, self.columns, "commit_time: ", "a column of this table")
            if self.columns[self.commit_time] != "timestamp":
                raise ValueError(f"commit_time: column {self.commit_time!r} must be a timestamp")
        if self.cursor is not None:
            self._cursor_fits(self.cursor)
        return self

    @model_validator(mode="after")
    def _keys_and_personal_fit(self) -> Self:
        for name in self.key:
            if self.personal.get(name) == "drop":
                raise ValueError(f"personal.{name}: a key cannot be dropped; use pseudonymise")
            if self.columns[name] in OPAQUE:
                raise ValueError(f"key: {name!r} is {self.columns[name]}, which can be no key")
        for name, how in self.personal.items():
            if how == "pseudonymise" and self.columns[name] == "bytes":
                raise ValueError(f"personal.{name}: bytes have no pseudonym; use drop")
        return self

    def _cursor_fits(self, cursor: Cursor) -> None:
        kinds = {"column": ("timestamp", "int32", "int64"), "deleted": ("bool", "timestamp")}
        for field, accepted in kinds.items():
            if (name := getattr(cursor, field)) is None:
                continue
            path = f"cursor.{field}: "
            require(name, self.columns, path, "a column of this table")
            if self.columns[name] not in accepted or name in self.personal:
                raise ValueError(
                    f"{path}column {name!r} must be {' or '.join(accepted)}, and not personal"
                )
        timed = self.columns[cursor.column] == "timestamp"
        if (cursor.lag_n if timed else cursor.lag_s) is not None:
            wrong, right = ("lag_n", "lag_s") if timed else ("lag_s", "lag_n")
            kind = self.columns[cursor.column]
            raise ValueError(f"cursor.{wrong}: {cursor.column!r} is {kind}; declare `{right}`")
        if self.commit_time not in (None, cursor.column):
            raise ValueError("commit_time: the cursor gives the commit time; leave it out")

    def with_columns(self, further: Mapping[str, str]) -> Table:
        """The table with further columns (name → type) that the source has.

        Those that are declared or ignored by now stay as the declaration has them.
        """
        added = {
            name: kind
            for name, kind in further.items()
            if name not in self.columns and name not in self.ignore
        }
        table = self.model_copy(update={"columns": {**self.columns, **added}})
        table._auto_added = {**self._auto_added, **added}
        return table

    @property
    def auto_added(self) -> dict[str, str]:
        """The columns, name → type, that were captured without being declared."""
        return dict(self._auto_added)

    def stored_columns(self) -> dict[str, pa.DataType]:
        """The columns that reach the lake: declared ones less the dropped, in order.

        A pseudonymised column is stored as text.
        """
        return {
            name: pa.string() if self.personal.get(name) == "pseudonymise" else arrow_type(kind)
            for name, kind in self.columns.items()
            if self.personal.get(name) != "drop"
        }
