"""Validate: sound changes go on; unsound ones are quarantined with the reason."""

from pipelines.validate.stage import Validated, run

__all__ = ["Validated", "run"]
