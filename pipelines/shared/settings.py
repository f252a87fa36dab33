"""Settings of an installation: read once, at the edge, from the environment or Airflow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipelines.shared.errors import SettingsError

PROJECT = Path(__file__).resolve().parents[2]
_ENCODE = (
    "cannot be read as an address: a user or password with characters such as @ : / ? # or a "
    "space has to have them percent-encoded (@ is %40)"
)


class Settings(BaseSettings):
    """Where things are. Every field is `FRESHRANK_<NAME>` in the environment.

    Raises:
        pydantic.ValidationError: a value is missing or of the wrong type; use `load_settings`
            for an error that says what to do.
    """

    model_config = SettingsConfigDict(
        env_prefix="FRESHRANK_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    lake: str
    """Root of the lake: a folder, or an object-store URL that delta-rs reads."""
    backup: str | None = None
    """Root of a copy of the lake, which maintenance writes. Unset or empty: there is no copy."""
    ledger_url: SecretStr
    """SQLAlchemy URL of the ledger."""
    mlflow_uri: SecretStr
    """Address of the MLflow server."""
    connections: dict[str, SecretStr] = Field(default_factory=dict)
    """Connection name → SQLAlchemy URL of a shop's database."""
    shop: str = "completejourney"
    """Name of the shop that a command or run is for, where it names none."""
    shops: Path = PROJECT / "shops"
    """Folder of the shops' declarations, one folder a shop."""
    expectations: Path = PROJECT / "expectations"
    """Folder of the suites of expectations, one folder a shop."""
    pseudonym_key: SecretStr | None = None
    """Key of the hash that replaces personal values. Required where a shop pseudonymises a column;
    a new key makes new pseudonyms."""
    threads: int = Field(default=2, ge=1)
    """Number of threads that one task uses."""
    memory_limit: str = Field(default="4GB", pattern=r"^[1-9]\d*(MB|GB)$")
    """Memory limit in `MB` or `GB`: of DuckDB, which spills to disk beyond it, or the heap of
    Spark's driver and of each executor."""
    engine: Literal["duckdb", "spark"] = "duckdb"
    """Engine that computes features: DuckDB on one machine, or Spark on many."""
    spark_master: str = Field(default="local[*]", min_length=1)
    """Spark's master URL: `local[*]`, `spark://host:7077`, `k8s://…`, `yarn`."""
    spill: Path | None = None
    """Folder for data that does not fit into memory and for data handed to Spark; all of Spark's
    machines must see it under this path. Unset: a temporary folder of this machine."""

    @field_validator("ledger_url", "mlflow_uri", "connections")
    @classmethod
    def _readable(cls, value: SecretStr | dict[str, SecretStr]) -> SecretStr | dict[str, SecretStr]:
        # A driver that misreads an address names half a password as the host it cannot find.
        for each in value.values() if isinstance(value, dict) else [value]:
            if not _is_readable(each.get_secret_value()):
                raise ValueError(_ENCODE)
        return value

    def connection(self, name: str) -> str:
        """The URL of a shop's database.

        Raises:
            SettingsError: no such connection is set.
        """
        try:
            return self.connections[name.lower()].get_secret_value()
        except KeyError:
            raise SettingsError(
                f"no connection {name!r}: set FRESHRANK_CONNECTIONS__{name.upper()} to its "
                f"SQLAlchemy URL, or make the Airflow connection `freshrank_{name.lower()}`"
            ) from None


def without_secrets(address: str) -> str:
    """An address without user, password and query, however it is written."""
    begin, mark, rest = address.rpartition("@")
    scheme = begin.partition("://")[0] + "://" if "://" in begin else ""
    return (f"{scheme}***@{rest}" if mark else address).partition("?")[0]


def explain(error: BaseException, address: str) -> str:
    """An error's type and first words, without what is secret in the address that it is about."""
    text = f"{type(error).__name__}: {error}"[:1000]
    user, _, password = address.partition("://")[2].rpartition("@")[0].partition(":")
    if not _is_readable(address) or re.search(r"[@/?#\s]", password):
        return f"{type(error).__name__}: the address {_ENCODE}"
    text = text.replace(address, without_secrets(address))
    secret = password or user
    for written in {secret, unquote(secret)} - {""}:
        text = text.replace(written, "***")
    return text[:200]


def _is_readable(address: str) -> bool:
    """Whether user, password and host are told apart as they are meant."""
    import sqlalchemy as sa

    try:
        if address.startswith(("http://", "https://")):
            split = urlsplit(address)
            host, beyond = split.hostname or "", address.partition(split.netloc)[2]
            userinfo = split.netloc.rpartition("@")[0]
            odd = re.search(r"[@\s]", host + userinfo) or "@" in beyond
            return split.port != -1 and not odd  # Asking for the port reads it.
        return not re.search(r"[@\s]", sa.make_url(address).host or "")
    except sa.exc.ArgumentError:
        return True  # No address of a server: a folder, or what its reader refuses.
    except ValueError:
        return False


def load_settings(**overrides: object) -> Settings:
    """Read the settings from the environment; `overrides` win.

    Raises:
        SettingsError: a setting is missing or wrong; names its variable.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(
            f"FRESHRANK_{'__'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(f"{faults}. See .env.example; `make up` writes a working set") from None
