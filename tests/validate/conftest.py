"""A run of the bundled shop's first week, with its own lake and ledger and no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.shared.run import Run
from pipelines.shared.settings import PROJECT, Settings
from tests.validate.partitions import WEEK


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        lake=str(tmp_path / "lake"),
        ledger_url=f"sqlite:///{tmp_path}/ledger.db",
        mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db",
        shops=PROJECT / "shops",
        expectations=PROJECT / "expectations",
    )


@pytest.fixture
def run(settings: Settings) -> Run:
    return Run.of(settings, "completejourney", WEEK)


@pytest.fixture
def suites(run: Run, tmp_path: Path) -> Path:
    """A folder for suites of the test's own; the run reads it."""
    folder = tmp_path / "suites"
    (folder / "completejourney").mkdir(parents=True)
    object.__setattr__(run, "settings", run.settings.model_copy(update={"expectations": folder}))
    return folder / "completejourney"
