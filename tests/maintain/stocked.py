"""A lake with four extracted and validated weeks of one table, from a list-backed source."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines import validate
from pipelines.extract.stage import extract
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation
from pipelines.shared.settings import Settings
from tests.extract.list_source import ListSource
from tests.extract.postgres_shop import DECLARED
from tests.extract.test_stage import TABLE, WEEKS, living_source

__all__ = ["TABLE", "WEEKS", "copied", "empty", "living_source", "stock"]


def empty(folder: Path, retention: str = "") -> Installation:
    """The tiny shop with a lake and ledger of its own, and perhaps a retention."""
    shops = folder / "shops"
    (shops / "tiny").mkdir(parents=True)
    declared = (DECLARED / "tiny" / "shop.yaml").read_text(encoding="utf-8")
    (shops / "tiny" / "shop.yaml").write_text(declared + retention, encoding="utf-8")
    settings = Settings(
        lake=str(folder / "lake"),
        ledger_url=f"sqlite:///{folder}/ledger.db",
        mlflow_uri="",
        shop="tiny",
        shops=shops,
        expectations=DECLARED / "expectations",
    )
    return Installation.open(settings, "tiny")


def copied(original: Installation, folder: Path, retention: str = "") -> Installation:
    """The same lake and ledger in another folder."""
    shutil.copytree(Path(original.settings.lake).parent, folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "shops")
    return empty(folder, retention)


def stock(
    installation: Installation, weeks: list[Interval] = WEEKS, source: ListSource | None = None
) -> ListSource:
    """Extract and validate some weeks; one article of them has a price below nothing."""
    if source is None:
        source = living_source()
        wrong = source.begin("2017-01-05")
        wrong.insert(TABLE, {"sku": "wrong", "kind": "k", "maker": None, "amount": -1})
        wrong.commit()
    for week in weeks:
        extract(installation.run(week), TABLE, source)
        validate.run(installation.run(week), TABLE)
    return source
