"""Maintenance of the lake: verify it against the ledger, repair it, keep it small, copy it.

It is no stage: it works on what the stages wrote, one shop at a time.
"""

from pipelines.maintain.backup import back_up
from pipelines.maintain.repair import repair
from pipelines.maintain.upkeep import Upkeep, run
from pipelines.maintain.verify import Fault, Report, verify

__all__ = ["Fault", "Report", "Upkeep", "back_up", "repair", "run", "verify"]
