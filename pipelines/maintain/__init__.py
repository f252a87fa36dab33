"""Maintenance of the lake: verify it against the ledger, mend it, keep it small, copy it.

No stage: it works on what the stages left, one shop at a time.
"""

from pipelines.maintain.backup import back_up, require_backup
from pipelines.maintain.repair import repair
from pipelines.maintain.upkeep import Kept, run
from pipelines.maintain.verify import Fault, Report, verify

__all__ = ["Fault", "Kept", "Report", "back_up", "repair", "require_backup", "run", "verify"]
