"""The shop's history, computed in advance: every change with the tick of its commit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Self

import duckdb

from shops.completejourney.life import OPENING, Life

RULES = files(__package__).joinpath("history.sql").read_text(encoding="utf-8")


def commit_time(tick: int, life: Life) -> datetime:
    """When the changes of a tick are committed."""
    return OPENING + timedelta(hours=life.tick_hours) * tick


def last_tick(until: datetime, life: Life) -> int:
    """The last tick that is committed before `until`, at least 0."""
    return max(0, math.ceil((until - OPENING) / timedelta(hours=life.tick_hours)) - 1)


class History:
    """Changes of the shop in `[OPENING, until)`, one table per step of the replay."""

    def __init__(
        self, sources: Mapping[str, Path], share: float, until: datetime, life: Life
    ) -> None:
        self._last_tick = last_tick(until, life)
        self._database = duckdb.connect()
        self._database.execute("SET TimeZone = 'UTC'")
        for name, path in sources.items():
            quoted = str(path).replace("'", "''")
            self._database.execute(f"CREATE VIEW {name} AS FROM read_parquet('{quoted}')")
        self._set("opening", f"TIMESTAMP '{OPENING:%Y-%m-%d %H:%M:%S}'")
        self._set("until", f"TIMESTAMP '{until:%Y-%m-%d %H:%M:%S}'")
        self._set("share", repr(float(share)))
        for name, value in asdict(life).items():
            self._set(name, str(list(value)) if isinstance(value, tuple) else repr(value))
        self._database.execute(RULES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def _set(self, name: str, literal: str) -> None:
        self._database.execute(f"SET VARIABLE {name} = {literal}")

    def ticks(self, table: str) -> list[int]:
        """The ticks in which `table` holds a change, in order."""
        rows = self._database.execute(
            f"SELECT DISTINCT tick FROM {table} WHERE tick <= {self._last_tick} ORDER BY tick"
        ).fetchall()
        return [tick for (tick,) in rows]

    def write_csv(self, table: str, target: Path) -> None:
        """Write a table as CSV without header, in the order of ticks and keys; NULL is `\\N`."""
        columns = [name for (name, *_) in self._database.execute(f"DESCRIBE {table}").fetchall()]
        ticked = columns[0] == "tick"
        where = f"WHERE tick <= {self._last_tick}" if ticked else ""
        quoted = str(target).replace("'", "''")
        self._database.execute(
            f"COPY (SELECT * FROM {table} {where} ORDER BY ALL) TO '{quoted}' "
            "(FORMAT csv, HEADER false, NULLSTR '\\N')"
        )
