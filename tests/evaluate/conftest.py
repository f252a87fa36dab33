"""The lake made from real baskets, once; an installation with a copy of it for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.shared.lake import Lake
from tests.evaluate.real_groups import SHOP, Installation, build

Real = tuple[Path, dict[str, dict[str, int]]]


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """The lake, read only, and its vocabulary."""
    root = tmp_path_factory.mktemp("groups") / "lake"
    return root, build(Lake(str(root), SHOP))


@pytest.fixture
def installation(tmp_path: Path, real: Real) -> Installation:
    """A copy of the lake with an empty ledger."""
    return Installation.at(tmp_path, *real)
