"""Pruning: sources delete captured changes that were extracted and that nothing needs any more."""

from __future__ import annotations

from datetime import datetime

from pipelines.extract.modes import mode, with_new_columns
from pipelines.extract.position import positions
from pipelines.extract.stage import STAGE, auto_added_columns
from pipelines.shared.run import Installation


def prune(installation: Installation, before: datetime) -> dict[str, int]:
    """Delete what nothing needs any more from sources that keep changes in the shop's tables.

    Intervals that ended by a time can be extracted again only as far as nothing was deleted.
    `before` is the end of the newest interval that need not be. Returns table → changes deleted.

    Raises:
        CaptureMissing: changes are not captured, or the account may not delete.
        SourceUnavailable: a source does not answer; those before it are done.
        LedgerUnavailable: the ledger does not answer.
    """
    known = installation.ledger.manifests(STAGE)
    columns = auto_added_columns(each for each in known if each.subject in installation.shop.tables)
    deleted: dict[str, int] = {}
    for part in installation.shop.parts():
        url = installation.settings.connection(part.source.connection)
        done = positions([each for each in known if each.interval.end <= before], part)
        if done and (delete := mode(url, part).prune):
            deleted |= delete(url, with_new_columns(url, part, columns), done)
    return deleted
