"""Maintenance of the lake: verify it against the ledger, repair it, keep it small, copy it, and
forget a shopper.

It is no stage: it works on what the stages wrote, one shop at a time.
"""

from pipelines.maintain.backup import back_up
from pipelines.maintain.forget import Forgot, forget, forget_again
from pipelines.maintain.repair import repair
from pipelines.maintain.upkeep import Upkeep, run
from pipelines.maintain.verify import Fault, Report, verify

__all__ = [
    "Fault",
    "Forgot",
    "Report",
    "Upkeep",
    "back_up",
    "forget",
    "forget_again",
    "repair",
    "run",
    "verify",
]
