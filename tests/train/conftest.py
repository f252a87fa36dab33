"""Installations made from real baskets: built once, copied for each test.

The laws' tests use these too: they bind the fixtures to names of their own modules.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import train
from pipelines.shared.lake import Lake
from tests.train.baskets import SHOP, WEEKS, Installation, build


@pytest.fixture(scope="session")
def real_baskets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with feature tables of thirteen weeks, and a ledger that knows of them."""
    root = tmp_path_factory.mktemp("baskets")
    build(Lake(str(root / "lake"), SHOP))
    built = Installation.of(root)
    for number in range(WEEKS):
        built.record(number)
    return root


@pytest.fixture(scope="session")
def real_champion(tmp_path_factory: pytest.TempPathFactory, real_baskets: Path) -> Path:
    """The same with a first model, learned from weeks 0 to 3 and promoted as version 1."""
    root = tmp_path_factory.mktemp("champion")
    shop = Installation.at(root, real_baskets, warm_up_intervals=4)
    shop.promote(0, train.run(shop.run(0, 4)).challengers[0], 4)
    return root


@pytest.fixture
def install(tmp_path: Path, real_baskets: Path) -> Callable[..., Installation]:
    """Make the test's installation; named values change the shop's `learning` or `gate`."""
    return lambda **changed: Installation.at(tmp_path / "shop", real_baskets, **changed)


@pytest.fixture
def shop(install: Callable[..., Installation]) -> Installation:
    """An installation with the shop's own rules, but for a warm-up of four weeks."""
    return install(warm_up_intervals=4)


@pytest.fixture
def started(tmp_path: Path, real_champion: Path) -> Installation:
    """An installation whose first model, of weeks 0 to 3, is champion."""
    return Installation.at(tmp_path / "started", real_champion, warm_up_intervals=4)
