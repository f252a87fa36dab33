"""Publish: the champion's lists for every shopper, into the shop's own database."""

from pipelines.publish.stage import Published, run

__all__ = ["Published", "run"]
