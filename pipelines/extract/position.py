"""Positions on record: up to where a table was extracted, and in which capture mode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.extract.source import Position
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import PermanentError
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest

CAPTURE = "capture"
"""In a manifest's details: the capture mode that its position is of."""
_KEYS: Mapping[str, str] = {"lsn": "wal", "server": "binlog", "of": "cursor"}
"""What only positions of a mode hold, for manifests that do not name theirs."""


class CaptureChanged(PermanentError):
    """A table was extracted in another capture mode than the one declared now."""


def position_before(known: list[Manifest], interval: Interval) -> Position | None:
    """The position from which an interval goes on: that of the last one extracted before it."""
    before = [each for each in known if each.position and each.interval.end < interval.end]
    return before[-1].position if before else None


def positions(known: Iterable[Manifest], part: Shop) -> dict[str, Position]:
    """The last position of each table of a source, of those extracted in its capture mode."""
    last = {each.subject: each for each in known if each.position and each.subject in part.tables}
    return {
        table: each.position
        for table, each in last.items()
        if capture_of(each) == part.source.capture
    }


def capture_of(manifest: Manifest) -> str:
    """The capture mode that a manifest's position is of."""
    named: Any = manifest.details.get(CAPTURE)
    found = [mode for key, mode in _KEYS.items() if key in manifest.position]
    return str(named or next(iter(found), "trigger"))


def require_same_capture(known: Iterable[Manifest], part: Shop) -> None:
    """Refuse to go on from positions that mean nothing in the declared capture mode.

    A new snapshot would bring the rows that are there now, and leave those that were deleted in
    between in the lake for ever.

    Raises:
        CaptureChanged: a table of the source was last extracted in another mode.
    """
    last = {each.subject: each for each in known if each.position and each.subject in part.tables}
    now = part.source.capture
    for table, each in sorted(last.items()):
        if (then := capture_of(each)) != now:
            raise CaptureChanged(
                f"{table} was extracted with `capture: {then}` up to {each.interval.end:%FT%TZ}, "
                f"and source {part.source_name} declares `capture: {now}` now: rows deleted in "
                f"between would stay. Declare `capture: {then}` again; or, to change, declare the "
                f"shop under a new name with `capture: {now}`, load it, and retire this one"
            )
