"""The ledger: the append-only record of manifests, model versions and decisions.

The registry's aliases are derived from it.
"""

from pipelines.shared.ledger.database import LOCK_S
from pipelines.shared.ledger.ledger import Ledger
from pipelines.shared.ledger.records import Decision, Manifest, Outcome, Version, champion_of

__all__ = [
    "LOCK_S",
    "Decision",
    "Ledger",
    "Manifest",
    "Outcome",
    "Version",
    "champion_of",
]
