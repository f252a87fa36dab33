"""The folder that holds everything one machine keeps: databases, lake, logs and keys."""

import base64
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path

from local.errors import LocalError

LOGIN = "admin"
"""The one user of Airflow and MLflow."""
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Keys:
    """The secrets of one home, generated once; none is shown but the password of the pages."""

    postgres_password: str
    pseudonym_key: str
    airflow_fernet_key: str
    airflow_api_key: str
    airflow_jwt_key: str
    login_password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    """Of the user `admin` at Airflow and MLflow. Homes of earlier versions have none yet."""

    @classmethod
    def fresh(cls) -> "Keys":
        """New random keys."""
        return cls(
            postgres_password=secrets.token_hex(16),
            pseudonym_key=secrets.token_hex(32),
            airflow_fernet_key=base64.urlsafe_b64encode(os.urandom(32)).decode(),
            airflow_api_key=secrets.token_hex(32),
            airflow_jwt_key=secrets.token_hex(32),
        )


@dataclass(frozen=True)
class Home:
    """The paths inside the folder; nothing is created until something needs it."""

    path: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Home":
        """The folder FRESHRANK_HOME names, or `.freshrank` in the project."""
        named = environment.get("FRESHRANK_HOME", "").strip()
        return cls((Path(named) if named else PROJECT / ".freshrank").expanduser().absolute())

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data directory."""
        return self.path / "pg"

    @property
    def lake(self) -> Path:
        """The Delta lake."""
        return self.path / "lake"

    @property
    def logs(self) -> Path:
        """One log file a service."""
        return self.path / "logs"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.path / "airflow"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where the MLflow server keeps models and plots."""
        return self.path / "mlflow-artifacts"

    @property
    def services_file(self) -> Path:
        """Which process serves what, on which port."""
        return self.path / "services.json"

    @property
    def environment_file(self) -> Path:
        """The settings, to be sourced by a shell."""
        return self.path / "env"

    @property
    def login_file(self) -> Path:
        """Who may open the pages, and by which password, as Airflow reads it."""
        return self.path / "login.json"

    @property
    def keys_file(self) -> Path:
        """The secrets of this home, readable by its owner only."""
        return self.path / "keys.json"

    def create(self) -> None:
        """Make the folder, closed to other accounts; one of an earlier version is closed too."""
        ours = self.keys_file.exists() or not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        if ours:
            self.path.chmod(0o700)

    def delete(self) -> None:
        """Delete everything in it.

        Raises:
            LocalError: the folder is not a home; FRESHRANK_HOME may name a wrong one.
        """
        if not self.path.exists():
            return
        if not self.keys_file.exists():
            raise LocalError(
                f"{self.path} holds no {self.keys_file.name}, so it is not a home of Freshrank "
                "and is not deleted; check FRESHRANK_HOME, or delete it by hand"
            )
        shutil.rmtree(self.path)

    def keys(self) -> Keys:
        """The keys of this home, generated at the first call.

        Raises:
            LocalError: the key file is there but is not what this version wrote.
        """
        try:
            stored = json.loads(self.keys_file.read_text())
        except FileNotFoundError:
            keys = Keys.fresh()
            write_private(self.keys_file, json.dumps(asdict(keys), indent=2) + "\n")
            return keys
        except json.JSONDecodeError as error:
            raise self._unreadable_keys() from error
        names = {each.name for each in fields(Keys)}
        later = {each.name for each in fields(Keys) if each.default_factory is not MISSING}
        if not isinstance(stored, dict) or not names - later <= set(stored) <= names:
            raise self._unreadable_keys()
        keys = Keys(**stored)
        if set(stored) != names:
            write_private(self.keys_file, json.dumps(asdict(keys), indent=2) + "\n")
        return keys

    def _unreadable_keys(self) -> LocalError:
        return LocalError(
            f"{self.keys_file} is not a key file of this version of Freshrank; restore it, or "
            f"start over with `make clean` (this deletes {self.path})"
        )


def write_private(path: Path, text: str) -> None:
    """Put text in a file that only its owner may read; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    draft.replace(path)
