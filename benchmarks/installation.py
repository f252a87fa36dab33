"""A throwaway installation for benchmarks: PostgreSQL, MLflow and the bundled shop, no Airflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console

from local import services, shop
from local.servers.environment import QUIET, SHARED_CORES
from pipelines.shared.settings import Settings


@contextmanager
def installed(home: Path, share: float, until: datetime) -> Iterator[Settings]:
    """Start the services under `home`, load the shop, and stop them at the end."""
    os.environ.update(QUIET | SHARED_CORES)
    with services.stack(home, components=()) as running:
        shop.load(running.postgres, share=share, until=until, console=Console(quiet=True))
        yield running.settings
