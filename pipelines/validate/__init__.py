"""Sound changes go on; unsound ones are set aside with the reason."""

from pipelines.validate.stage import Validated, run

__all__ = ["Validated", "run"]
