"""The SQL of trigger capture: names, the table of changes, the trigger function.

For each captured table `t`, a schema named by `Shop.footprint` holds the append-only table
`changes_t` and the function `capture_t`. Statement-level triggers with transition tables write
the changes of a statement by set operations, so that a bulk statement stays cheap. Only stored
columns are read: what is declared `drop` never leaves its table.

Values are widened (integers to bigint, text-like types to text), so that writing a change does
not fail where the shop's own write succeeded. Should it fail all the same (say, a declared
column was dropped), the shop's write goes on and the failure is noted in `faults`: extraction
then stops until capture is installed again, which catches up.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.shared.declaration import Shop
from pipelines.shared.errors import DeclarationError

CLOCK = (
    "coalesce(nullif(current_setting('freshrank.clock', true), '')::timestamptz, clock_timestamp())"
)
"""The commit time of a change without a commit-time column; a replay sets `freshrank.clock`."""

EVENTS = ("insert", "update", "delete", "truncate")
MAX_NAME = 63
"""Bytes of a PostgreSQL name; longer ones are cut without a word."""

_STORED = {
    "int16": "bigint",
    "int32": "bigint",
    "int64": "bigint",
    "float64": "double precision",
    "string": "text",
    "uuid": "text",
    "json": "text",
    "bytes": "bytea",
    "bool": "boolean",
    "date": "date",
    "timestamp": "timestamptz",
}


@dataclass(frozen=True)
class Capture:
    """Names and SQL for one table.

    Raises:
        DeclarationError: a name would be longer than PostgreSQL allows.
    """

    shop: Shop
    table: str

    def __post_init__(self) -> None:
        for name in (f"changes_{self.table}", self.trigger("truncate")):
            if len(name.encode()) > MAX_NAME:
                raise DeclarationError(
                    f"the name {name} has more than {MAX_NAME} letters; change capture needs a "
                    f"shorter name for the shop {self.shop.shop} or its table {self.table}"
                )

    @property
    def source(self) -> str:
        """The captured table."""
        return f'"{self.shop.source.schema_name}"."{self.table}"'

    @property
    def schema(self) -> str:
        """The schema of everything that capture adds."""
        return self.shop.footprint

    @property
    def changes(self) -> str:
        """The table of changes."""
        return f'"{self.schema}"."changes_{self.table}"'

    @property
    def function(self) -> str:
        """The trigger function."""
        return f'"{self.schema}"."capture_{self.table}"'

    @property
    def columns(self) -> dict[str, str]:
        """Stored columns and the type in which capture keeps them."""
        declared = self.shop.tables[self.table]
        return {
            name: _kept_as(declared.columns[name], declared.personal.get(name))
            for name in declared.stored_columns()
        }

    @property
    def names(self) -> str:
        """Stored columns, as a list."""
        return ", ".join(f'"{name}"' for name in self.columns)

    @property
    def keys(self) -> str:
        """The key, as a list."""
        return ", ".join(f'"{name}"' for name in self.shop.tables[self.table].key)

    @property
    def values(self) -> str:
        """Stored columns of a row `r` of the source, in the kept types."""
        return ", ".join(f'r."{name}"::{kind} AS "{name}"' for name, kind in self.columns.items())

    def trigger(self, event: str) -> str:
        """Name of the trigger for an event."""
        return f"{self.shop.footprint}_{event}"

    def same_key(self, left: str, right: str) -> str:
        """Whether two rows have the same key; a null in it makes them differ."""
        key = self.shop.tables[self.table].key
        return "(" + " AND ".join(f'{left}."{name}" = {right}."{name}"' for name in key) + ")"

    def committed(self, clock: str) -> str:
        """Commit time of a row `c` that is there after the change."""
        column = self.shop.tables[self.table].commit_time
        return f'coalesce(c."{column}", {clock})' if column else clock

    def gone(self, clock: str) -> str:
        """Commit time of the deletion of a row `c`: its column says when it last changed."""
        column = self.shop.tables[self.table].commit_time
        return f'greatest(c."{column}", {clock})' if column else clock

    def write(self, query: str) -> str:
        """Append the changes that a query gives: `op`, `committed_at`, the stored columns."""
        return f"INSERT INTO {self.changes} (op, committed_at, {self.names}) {query}"

    def moves(self, old: str, new: str, clock: str) -> str:
        """Changes that lead from the rows of `old` to those of `new`, two named sets.

        Rows that stay as they are make no change. A key that is gone is a delete, one that is
        new an insert; so a changed key is both.
        """
        gone, came = (f"{old}_gone", f"{new}_came")
        key = self.shop.tables[self.table].key[0]
        return f"""{gone} AS MATERIALIZED (TABLE {old} EXCEPT ALL TABLE {new}),
            {came} AS MATERIALIZED (TABLE {new} EXCEPT ALL TABLE {old}),
            moved AS (
                SELECT 0 AS part, 'delete' AS op, {self.gone(clock)} AS committed_at, c.*
                FROM {gone} AS c
                WHERE NOT EXISTS (SELECT FROM {new} AS n WHERE {self.same_key("n", "c")})
                UNION ALL
                SELECT 1, CASE WHEN o."{key}" IS NULL THEN 'insert' ELSE 'update' END,
                       {self.committed(clock)}, c.*
                FROM {came} AS c
                LEFT JOIN (SELECT DISTINCT {self.keys} FROM {old}) AS o
                    ON {self.same_key("o", "c")}
            )
        {self.write(f"SELECT op, committed_at, {self.names} FROM moved ORDER BY part, {self.keys}")}
        """

    def catch_up(self, clock: str) -> str:
        """Write what leads from the captured state to the table as it is now."""
        last = f"SELECT DISTINCT ON ({self.keys}) * FROM {self.changes} ORDER BY {self.keys}"
        return f"""WITH
            known AS MATERIALIZED (
                SELECT {self.names} FROM ({last}, seq DESC) AS l WHERE op <> 'delete'),
            present AS MATERIALIZED (SELECT {self.values} FROM {self.source} AS r),
            {self.moves("known", "present", clock)}"""

    def create_changes(self) -> str:
        """Make the table of changes. Both indexes bound what an extraction reads."""
        columns = ", ".join(f'"{name}" {kind}' for name, kind in self.columns.items())
        return f"""
            CREATE TABLE IF NOT EXISTS {self.changes} (
                seq bigint GENERATED ALWAYS AS IDENTITY,
                transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
                op text NOT NULL,
                committed_at timestamptz NOT NULL,
                {columns}
            );
            CREATE INDEX IF NOT EXISTS "changes_{self.table}_at"
                ON {self.changes} (committed_at);
            CREATE INDEX IF NOT EXISTS "changes_{self.table}_tx"
                ON {self.changes} (transaction);"""

    def create_function(self) -> str:
        """Make the trigger function.

        It runs with its owner's rights, so that the shop's accounts need none on the changes.
        A cached plan made for a small statement must serve a large one: no nested loops.
        """
        put = self.committed("now")
        rows = f"(SELECT {self.values} FROM {{}} AS r) AS c"
        inserted = self.write(f"SELECT 'insert', {put}, c.* FROM {rows.format('new_rows')}")
        deleted = f"SELECT 'delete', {self.gone('now')}, c.* FROM {rows}"
        return f"""
            CREATE OR REPLACE FUNCTION {self.function}() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
            SET enable_nestloop = off SET enable_hashjoin = on AS $capture$
            DECLARE
                now timestamptz;
            BEGIN
                now := {CLOCK};
                IF TG_OP = 'INSERT' THEN
                    {inserted};
                ELSIF TG_OP = 'UPDATE' THEN
                    WITH before AS MATERIALIZED (SELECT {self.values} FROM old_rows AS r),
                    after AS MATERIALIZED (SELECT {self.values} FROM new_rows AS r),
                    {self.moves("before", "after", "now")};
                ELSIF TG_OP = 'DELETE' THEN
                    {self.write(deleted.format("old_rows"))};
                ELSE
                    {self.write(deleted.format(self.source))};
                END IF;{self._note_transaction()}
                RETURN NULL;
            EXCEPTION WHEN OTHERS THEN
                INSERT INTO "{self.schema}".faults (table_name, message)
                SELECT '{self.table}', SQLERRM WHERE NOT EXISTS (
                    SELECT FROM "{self.schema}".faults WHERE table_name = '{self.table}');
                RETURN NULL;
            END $capture$"""

    @property
    def stamped(self) -> bool:
        """Whether the clock gives the commit times, and not a column."""
        return self.shop.tables[self.table].commit_time is None

    def _note_transaction(self) -> str:
        """From when to when a transaction wrote, so that no interval's end divides it."""
        return (
            f"""
                IF FOUND THEN
                    INSERT INTO "{self.schema}".transactions AS t
                    VALUES (pg_current_xact_id(), now, now)
                    ON CONFLICT (transaction) DO UPDATE
                    SET first_at = least(t.first_at, now), last_at = greatest(t.last_at, now);
                END IF;"""
            if self.stamped
            else ""
        )

    def create_triggers(self) -> str:
        """Make the four triggers. TRUNCATE is caught before it: a delete for every row."""
        transitions = {
            "insert": "REFERENCING NEW TABLE AS new_rows",
            "update": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
            "delete": "REFERENCING OLD TABLE AS old_rows",
            "truncate": "",
        }
        return ";\n".join(
            f'DROP TRIGGER IF EXISTS "{self.trigger(event)}" ON {self.source}; '
            f'CREATE TRIGGER "{self.trigger(event)}" '
            f"{'BEFORE' if event == 'truncate' else 'AFTER'} {event} ON {self.source} "
            f"{transitions[event]} FOR EACH STATEMENT EXECUTE FUNCTION {self.function}(); "
            f'ALTER TABLE {self.source} ENABLE ALWAYS TRIGGER "{self.trigger(event)}"'
            for event in EVENTS
        )


def _kept_as(kind: str, personal: str | None) -> str:
    if personal is not None:
        return "text"
    return "numeric" if kind.startswith("decimal(") else _STORED[kind]
