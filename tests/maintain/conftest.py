"""Four weeks of one table, extracted and validated once; every test gets a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.shared.run import Installation
from tests.maintain.stocked import copied, empty, stock


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Not to be written to."""
    installation = empty(tmp_path_factory.mktemp("stocked"))
    stock(installation)
    return installation


@pytest.fixture
def stocked(original: Installation, tmp_path: Path) -> Installation:
    """A copy of the test's own."""
    return copied(original, tmp_path)
