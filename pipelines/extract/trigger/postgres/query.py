"""The queries of trigger capture: which changes an extraction takes, which pruning deletes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pipelines.extract.source import Position
from pipelines.extract.trigger.postgres.sql import Capture
from pipelines.shared.intervals import utc

_DIVIDED = """
    ANY (ARRAY(SELECT transaction FROM "{schema}".transactions
               WHERE last_at >= {end} AND first_at < {end}))
"""
# Python's calendar ends where PostgreSQL's goes on; infinity becomes its first or last moment.
_WITHIN = {
    "timestamptz": "CASE WHEN {0} < '0001-01-01 00:00+00' THEN '0001-01-01 00:00+00' "
    "WHEN {0} > '9999-12-31 23:59:59.999999+00' THEN '9999-12-31 23:59:59.999999+00' ELSE {0} END",
    "date": "CASE WHEN {0} < '0001-01-01' THEN '0001-01-01' "
    "WHEN {0} > '9999-12-31' THEN '9999-12-31' ELSE {0} END",
    "numeric": "trim_scale({0})",
}


def changes_query(
    capture: Capture, before: datetime, after: Position | None, snapshot: str
) -> tuple[str, dict[str, Any]]:
    """The changes between two positions, in the order of `seq`, with `change_schema`'s columns."""
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
    columns = ", ".join(
        _WITHIN.get(kind, "{0}").format(f'"{name}"') for name, kind in capture.columns.items()
    )
    query = (
        f"SELECT {columns}, op, committed_at, seq, transaction::text::bigint "
        f"FROM ({' UNION ALL '.join(pieces)}) AS taken ORDER BY seq"
    )
    return query, bound


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
