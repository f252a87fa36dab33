"""Promote: the verdict becomes a decision in the ledger, and the registry's alias follows it."""

from pipelines.promote.stage import Decided, promote, reject

__all__ = ["Decided", "promote", "reject"]
