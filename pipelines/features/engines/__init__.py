"""Where feature expressions run: DuckDB on one machine, Spark on many."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipelines.features.engines.base import Engine
from pipelines.features.engines.duckdb import DuckDB
from pipelines.features.engines.spark import Spark
from pipelines.shared.settings import Settings

_ENGINES: Final[dict[str, Callable[[Settings, Path], Engine]]] = {"duckdb": DuckDB, "spark": Spark}


@contextmanager
def engine(settings: Settings) -> Iterator[Engine]:
    """The engine of the settings with a spill folder of its own, both gone afterwards.

    Raises:
        SettingsError: the engine is not installed, or does not start.
    """
    if settings.spill is not None:
        settings.spill.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="freshrank-", dir=settings.spill) as spill:
        opened = _ENGINES[settings.engine](settings, Path(spill))
        try:
            yield opened
        finally:
            opened.close()
