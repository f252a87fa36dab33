"""Publish: the champion's lists for every shopper, into the shop's own database.

`erase` deletes the lists of forgotten shoppers.
"""

from pipelines.publish.stage import Published, erase, run

__all__ = ["Published", "erase", "run"]
