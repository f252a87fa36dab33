"""The state of a shop's sources: which answer, how far each table is extracted, what is pending."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.extract.modes import mode, with_new_columns
from pipelines.extract.position import positions, require_same_capture
from pipelines.extract.stage import STAGE, auto_added_columns
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import FreshrankError, SourceUnavailable
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Installation


@dataclass(frozen=True)
class TableState:
    """How far a table is extracted, and what is pending at its source."""

    table: str
    through: str | None
    """End of the last extracted interval; None: not extracted yet."""
    waits: bool
    """Whether other tables of the shop were extracted further."""
    pending_rows: int | None
    """Committed changes that are not extracted; None where that is not known."""
    pending_bytes: int | None
    """Unread bytes of the server's log, for all tables together; None without a log."""


@dataclass(frozen=True)
class SourceState:
    """One source: whether it answers, and its tables."""

    source: str
    capture: str
    answers: bool
    fault: str
    """Why it cannot be read; empty where it can."""
    tables: tuple[TableState, ...]
    ahead: tuple[str, ...] = ()
    """A few changes (table, key, time) that are stamped in the far future."""

    @property
    def waiting(self) -> list[str]:
        """The tables that cannot be extracted, or are behind the others."""
        return [each.table for each in self.tables if self.fault or each.waits]

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return asdict(self) | {"tables": [asdict(each) for each in self.tables]}


def sources(installation: Installation) -> list[SourceState]:
    """The state of every source, which are all asked at once.

    Raises:
        LedgerUnavailable: the ledger does not answer.
    """
    manifests = installation.ledger.manifests(STAGE)
    tables = installation.shop.tables
    before = auto_added_columns(each for each in manifests if each.subject in tables)
    parts = installation.shop.parts()
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(lambda part: _state(installation, part, manifests, before), parts))


def _state(
    installation: Installation,
    part: Shop,
    manifests: list[Manifest],
    before: dict[str, dict[str, str]],
) -> SourceState:
    fault, rows, log, ahead, answers = "", {}, {}, [], True
    try:
        url = installation.settings.connection(part.source.connection)
        captured = mode(url, part)
        captured.source(url, part, installation.settings).clock()
        require_same_capture(manifests, part)
        known = positions(manifests, part)
        part = with_new_columns(url, part, before)
        rows = captured.pending(url, part, known) if captured.pending else {}
        log = captured.pending_bytes(url, part, known) if captured.pending_bytes else {}
        ahead = captured.ahead(url, part) if captured.ahead else []
    except FreshrankError as error:
        fault, answers = str(error), not isinstance(error, SourceUnavailable)
    last = {each.subject: each for each in manifests}
    furthest = max((each.interval.end for each in last.values()), default=None)
    tables = []
    for table in sorted(part.tables):
        through = last[table].interval.end if table in last else None
        tables.append(
            TableState(
                table,
                through.isoformat() if through else None,
                furthest is not None and (through is None or through < furthest),
                rows.get(table),
                log.get(table),
            )
        )
    return SourceState(
        part.source_name, part.source.capture, answers, fault, tuple(tables),
        tuple(map(str, ahead)),
    )  # fmt: skip
