"""Extract: every insert, update and delete committed in an interval, once.

`install` begins to capture changes in the database of a source, `run` brings those of one interval
into `changes/<table>`, `again` reads them once more, `prune` lets triggers' tables forget what was
taken, `check` says what is wrong with a source, `clock` what time it is in the shop.
"""

from pipelines.extract.modes import check, install, remove
from pipelines.extract.prune import prune
from pipelines.extract.stage import Extracted, again, clock, run

__all__ = [
    "Extracted",
    "again",
    "check",
    "clock",
    "install",
    "prune",
    "remove",
    "run",
]
