"""Extract: every insert, update and delete committed in an interval, once.

`install` begins to capture changes in the database of a source. `run` brings those of an interval
into `changes/<table>`; `reextract` reads them again. `prune` deletes captured changes that nothing
needs any more. `check` says what is wrong with a source, `clock` what time it is in the shop.
"""

from pipelines.extract.modes import check, install, remove
from pipelines.extract.prune import prune
from pipelines.extract.reextract import reextract
from pipelines.extract.stage import Extracted, clock, run

__all__ = [
    "Extracted",
    "check",
    "clock",
    "install",
    "prune",
    "reextract",
    "remove",
    "run",
]
