"""Extract: every insert, update and delete committed in an interval, once.

`install` begins to capture changes in the shop's database, `run` brings those of one interval
into `changes/<table>`, `check` says what is wrong with the source, `clock` what time it is there.
"""

from pipelines.extract.install import check, install, remove
from pipelines.extract.stage import Extracted, clock, run

__all__ = ["Extracted", "check", "clock", "install", "remove", "run"]
