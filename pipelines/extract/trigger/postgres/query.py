"""The queries of trigger capture: which changes an extraction takes, which pruning deletes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pipelines.extract.databases.postgres.values import outside
from pipelines.extract.source import Position
from pipelines.extract.trigger.postgres.sql import CLOCK, Capture
from pipelines.shared.intervals import utc

_DIVIDED = """
    ANY (ARRAY(SELECT transaction FROM "{schema}".transactions
               WHERE last_at >= {end} AND first_at < {end}))
"""
_COMMITTED = "greatest(committed_at, '0001-01-01 00:00+00') AS committed_at"
"""A column may have a time before Christ, which no interval has."""


def changes_query(
    capture: Capture, before: datetime, after: Position | None, snapshot: str
) -> tuple[str, dict[str, Any]]:
    """The changes between two positions, in the order of `seq`.

    Their columns: those of `Capture.columns`, null where `outside`; the change's own; and, as
    texts, what was outside, for each column that `calendar_columns` lists.
    """
    bound: dict[str, Any] = {"before": before, "snapshot": snapshot}
    due = (
        "committed_at < %(before)s "
        "AND pg_visible_in_snapshot(transaction, %(snapshot)s::pg_snapshot)"
    )
    if capture.stamped:
        divided = _DIVIDED.format(schema=capture.schema, end="%(before)s")
        due += f" AND NOT transaction = {divided}"
    pieces = [f"SELECT * FROM {capture.changes} WHERE {due}"]
    if after is not None:
        bound |= {"end": utc(after["end"]), "seen": after["snapshot"]}
        unseen = (
            "committed_at < %(end)s AND transaction >= pg_snapshot_xmin(%(seen)s::pg_snapshot) "
            "AND NOT pg_visible_in_snapshot(transaction, %(seen)s::pg_snapshot)"
        )
        rest = ["committed_at >= %(end)s", unseen]
        if capture.stamped:
            divided = _DIVIDED.format(schema=capture.schema, end="%(end)s")
            rest.append(
                f"committed_at < %(end)s AND transaction = {divided} "
                "AND pg_visible_in_snapshot(transaction, %(seen)s::pg_snapshot)"
            )
        pieces = [f"{pieces[0]} AND {part}" for part in rest]
    columns = [_selected(f'"{name}"', kind) for name, kind in capture.columns.items()]
    columns += ["op", _COMMITTED, "seq", "transaction::text::bigint"]
    columns += [
        f"CASE WHEN {outside(quoted, capture.columns[name])} THEN {quoted}::text END"
        for name in calendar_columns(capture)
        for quoted in [f'"{name}"']
    ]
    query = f"SELECT {', '.join(columns)} FROM ({' UNION ALL '.join(pieces)}) AS taken ORDER BY seq"
    return query, bound


def calendar_columns(capture: Capture) -> list[str]:
    """The columns of dates and times, which may lie outside Python's calendar."""
    return [name for name, kind in capture.columns.items() if outside(name, kind)]


def _selected(column: str, kind: str) -> str:
    if kind == "numeric":
        return f"trim_scale({column})"
    beyond = outside(column, kind)
    return f"CASE WHEN NOT ({beyond}) THEN {column} END" if beyond else column


def overtaken(capture: Capture) -> str:
    """Deletes what was extracted at a position and a later change of the same row overtook."""
    seen = "committed_at < %(end)s AND pg_visible_in_snapshot(transaction, %(seen)s::pg_snapshot)"
    if capture.stamped:
        divided = _DIVIDED.format(schema=capture.schema, end="%(end)s")
        seen += f" AND NOT transaction = {divided}"
    return f"""
        DELETE FROM {capture.changes} WHERE ctid IN (
            SELECT place FROM (
                SELECT ctid AS place, op, taken,
                       row_number() OVER (PARTITION BY {capture.keys} ORDER BY seq DESC) AS age,
                       bool_and(taken) OVER (PARTITION BY {capture.keys}) AS all_taken
                FROM (SELECT ctid, seq, op, {capture.keys}, {seen} AS taken
                      FROM {capture.changes}) AS c
            ) AS k
            WHERE taken AND (age > 1 OR op = 'delete' AND all_taken))"""


def stamped_ahead(capture: Capture) -> str:
    """Keys and commit times, as texts, of rows whose last change is `ahead` of the clock."""
    keys = capture.shop.tables[capture.table].key
    shown = ", ".join(f'a."{name}"::text' for name in keys)
    return f"""
        WITH a AS MATERIALIZED (
            SELECT * FROM {capture.changes} WHERE committed_at > {CLOCK} + %(ahead)s
            ORDER BY committed_at, seq LIMIT 1000)
        SELECT {shown}, committed_at::text FROM a
        WHERE NOT EXISTS (SELECT FROM {capture.changes} AS l
                          WHERE {capture.same_key("l", "a")} AND l.seq > a.seq)
        ORDER BY committed_at, seq LIMIT %(named)s"""
