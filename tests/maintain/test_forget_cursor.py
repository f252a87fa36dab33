"""Forgetting where a cursor extracts: its index of keys, and deletes of which only the key is
known."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
import yaml

from pipelines import extract, maintain, validate
from pipelines.extract.cursor import key_index
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import Ledger
from pipelines.shared.run import Installation, Run
from pipelines.shared.settings import Settings
from tests.extract.postgres_shop import DECLARED

FIRST = utc("2017-01-02")
PLANTED = "planted/4711"
COLUMNS = {
    "users": "uid text primary key, email text, city text, touched timestamp",
    "articles": "sku text primary key, kind text, maker text, amount numeric(10,2), "
    "touched timestamp",
    "shown": "list_id text, sku text, uid text, place integer, shown_at timestamp, "
    "touched timestamp, primary key (list_id, sku)",
    "actions": "action_id text primary key, type text, uid text, sku text, at timestamp, "
    "pieces integer, paid numeric(10,2), touched timestamp",
}
TABLES = ("users", "actions")


@dataclass(frozen=True)
class CursorShop:
    """The tiny shop in SQLite, read by a cursor that also compares all keys."""

    settings: Settings
    engine: sa.Engine

    @property
    def installation(self) -> Installation:
        return Installation.open(self.settings, "tiny")

    def execute(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def user(self, uid: str, at: datetime) -> None:
        self.execute(
            "insert into users values (:uid, '', 'c', :at)", uid=uid, at=at.replace(tzinfo=None)
        )

    def act(self, name: str, uid: str, at: datetime) -> None:
        self.execute(
            "insert or replace into actions values (:name, 'view', :uid, 's', :at, 1, null, :at)",
            name=name, uid=uid, at=at.replace(tzinfo=None),
        )  # fmt: skip

    def take(self, number: int) -> None:
        """Extract and validate a week."""
        run = Run.of(self.settings, "tiny", week(number))
        for table in TABLES:
            extract.run(run, table)
            validate.run(run, table)

    def keys(self, table: str) -> set[str]:
        """The keys in every file of the index."""
        name = self.installation.shop.tables[table].key[0]
        folder = self.installation.lake.local_root / "key_index" / table
        return {
            str(key) for path in folder.rglob("*") for key in pq.read_table(path)[name].to_pylist()
        }

    def stored(self, part: str, table: str) -> list[tuple[str, Any, str]]:
        """Key, shopper and operation of every change."""
        key = self.installation.shop.tables[table].key[0]
        rows = self.installation.lake.read(f"{part}/{table}").to_pylist()
        return sorted((row[key], row["uid"] or "", row["_op"]) for row in rows)


def week(number: int) -> Interval:
    start = FIRST + timedelta(weeks=number)
    return Interval(start, start + timedelta(weeks=1))


def opened(folder: Path) -> CursorShop:
    """What lies in a folder."""
    url = f"sqlite:///{folder}/shop.db"
    settings = Settings(
        lake=str(folder / "lake"),
        ledger_url=f"sqlite:///{folder}/ledger.db",  # type: ignore[arg-type]
        mlflow_uri="",
        connections={"tiny": url},  # type: ignore[dict-item]
        shops=folder / "shops",
        expectations=DECLARED / "expectations",
        pseudonym_key="a key for tests",  # type: ignore[arg-type]
    )
    return CursorShop(settings, sa.create_engine(url, poolclass=sa.NullPool))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two weeks: one action of the planted shopper is deleted, another given to somebody else."""
    folder = tmp_path_factory.mktemp("cursor")
    declared = yaml.safe_load((DECLARED / "tiny" / "shop.yaml").read_text(encoding="utf-8"))
    declared["sources"]["shop"] |= {"capture": "cursor", "schema": "public"}
    for table in declared["tables"].values():
        table["columns"]["touched"] = "timestamp"
        table["cursor"] = {"column": "touched", "lag_s": 60, "reconcile": True}
    (folder / "shops" / "tiny").mkdir(parents=True)
    (folder / "shops" / "tiny" / "shop.yaml").write_text(yaml.safe_dump(declared))
    made = opened(folder)
    for name, columns in COLUMNS.items():
        made.execute(f"create table {name} ({columns})")
    for uid in (PLANTED, "u"):
        made.user(uid, FIRST + timedelta(hours=1))
        for number in range(3):
            made.act(f"{uid} act {number}", uid, FIRST + timedelta(hours=2 + number))
    made.take(0)
    made.execute("delete from actions where action_id = :name", name=f"{PLANTED} act 0")
    made.execute("delete from actions where action_id = 'u act 0'")
    made.act(f"{PLANTED} act 1", "u", week(1).start + timedelta(hours=1))
    made.take(1)
    assert (f"{PLANTED} act 0", "", "delete") in made.stored("changes", "actions")
    return folder


@pytest.fixture
def shop(original: Path, tmp_path: Path) -> CursorShop:
    """A copy of the test's own."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return opened(tmp_path)


def left(shop: CursorShop) -> None:
    """Nothing is left of the planted shopper, and everything of the other."""
    kept = [
        (f"{PLANTED} act 1", "u", "update"), ("u act 0", "", "delete"), ("u act 0", "u", "insert"),
        ("u act 1", "u", "insert"), ("u act 2", "u", "insert"),
    ]  # fmt: skip
    assert shop.stored("changes", "actions") == kept
    assert shop.stored("valid", "actions") == kept
    assert shop.stored("changes", "users") == [("u", "u", "insert")]
    assert shop.keys("users") == {"u"}
    assert shop.keys("actions") == {f"{PLANTED} act 1", "u act 0", "u act 1", "u act 2"}
    assert maintain.verify(shop.installation).faults == ()


def test_keys_are_forgotten_and_rows_that_only_have_such_a_key(shop: CursorShop) -> None:
    maintain.forget(shop.installation, PLANTED, "request 7", "Ana")
    left(shop)
    shop.act(f"{PLANTED} act 7", PLANTED, week(2).start + timedelta(hours=1))
    shop.act("u act 7", "u", week(2).start + timedelta(hours=1))
    shop.execute("delete from actions where action_id = :name", name=f"{PLANTED} act 2")
    shop.take(2)
    run = Run.of(shop.settings, "tiny", week(2))
    assert run.lake.read("changes/actions", [run.interval])["action_id"].to_pylist() == ["u act 7"]
    assert run.lake.read("changes/users", [run.interval]).num_rows == 0
    assert shop.keys("users") == {"u"}
    assert not {f"{PLANTED} act 7", f"{PLANTED} act 2"} & shop.keys("actions")
    assert maintain.verify(shop.installation).faults == ()


@pytest.mark.parametrize(
    ("owner", "name"), [(Ledger, "record"), (Lake, "replace"), (Lake, "vacuum")]
)
@pytest.mark.parametrize("calls", [0, 2, 5])
def test_a_kill_loses_no_key(
    owner: type, name: str, calls: int, shop: CursorShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, left_over = getattr(owner, name), calls

    def killed(*arguments: Any, **named: Any) -> Any:
        nonlocal left_over
        left_over -= 1
        if left_over < 0:
            raise KeyboardInterrupt
        return whole(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(KeyboardInterrupt):
            maintain.forget(shop.installation, PLANTED, "request 7", "Ana")
    maintain.forget(shop.installation, PLANTED, "request 7", "Ana")
    left(shop)


def test_a_killed_writer_of_the_index_leaves_nothing(shop: CursorShop) -> None:
    half = shop.installation.lake.local_root / "key_index" / "users" / "00000009.parquet.part"
    half.write_text(PLANTED)
    erased = key_index.erase_keys(
        shop.installation.lake, "users", lambda rows: rows.column("uid").is_null()
    )
    assert erased == 0
    assert not half.exists()
