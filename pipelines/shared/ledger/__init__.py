"""The ledger: the append-only record of manifests, model versions, decisions and turns.

The registry's aliases are derived from it.
"""

from pipelines.shared.ledger.database import LOCK_S
from pipelines.shared.ledger.ledger import Ledger
from pipelines.shared.ledger.records import (
    Decision,
    Forgetting,
    Manifest,
    Outcome,
    Version,
    champion_of,
)
from pipelines.shared.ledger.turns import Turn, Turns

__all__ = [
    "LOCK_S",
    "Decision",
    "Forgetting",
    "Ledger",
    "Manifest",
    "Outcome",
    "Turn",
    "Turns",
    "Version",
    "champion_of",
]
