"""Features: the state is folded from each step's change, and groups get features from it.

`run` takes steps; `serve` gives every shopper's candidates their features with the same code.
"""

from pipelines.features.stage import Built, Served, run, serve

__all__ = ["Built", "Served", "run", "serve"]
