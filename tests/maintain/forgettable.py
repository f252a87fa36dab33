"""The tiny shop with one more shopper, whose every value is theirs alone, and what is stored of it.

The shop is in PostgreSQL, captured by triggers; its loop has run for some weeks and published.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import sqlalchemy as sa

from benchmarks.servers import postgres
from local.servers.postgres import PostgresServer
from pipelines import extract, loop, maintain
from pipelines.shared.hashing import pseudonym
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation, Run
from pipelines.shared.settings import Settings
from tests import tiny_shop
from tests.extract.postgres_shop import DECLARED

SIZE = tiny_shop.Size(users=40, articles=60, lists_a_week=84, shown_a_list=12, weeks=6)
TOLD = 4
"""Weeks whose loop has run; the source has more."""
PLANTED = "planted/4711"
KEY = "a key for tests"
PERSONAL = {
    "personal: {email: drop, city: pseudonymise}": "personal: {uid: pseudonymise, email: drop, "
    "city: pseudonymise}",
    "shown_at: timestamp}": "shown_at: timestamp}\n    personal: {uid: pseudonymise}",
    'paid: "decimal(10,2)"}': 'paid: "decimal(10,2)"}\n    personal: {uid: pseudonymise}',
}
"""What makes ids of shoppers pseudonyms, in the tiny shop's declaration."""


def week(number: int) -> Interval:
    """A week of the shop, from 0."""
    start = tiny_shop.FIRST + timedelta(weeks=number)
    return Interval(start, start + timedelta(weeks=1))


@dataclass(frozen=True)
class Forgettable:
    """An installation, and the shop's database."""

    folder: Path
    settings: Settings
    url: str
    pseudonymised: bool

    @property
    def installation(self) -> Installation:
        """Opened again, as the next command would."""
        return Installation.open(self.settings, "tiny")

    def update(self, number: int) -> dict[str, Any]:
        """Run the loop for a week."""
        return loop.run_interval(Run.of(self.settings, "tiny", week(number)), lambda *_: None)

    def publish(self, number: int) -> None:
        """Publish the lists as of a week's end."""
        loop.publish(Run.of(self.settings, "tiny", week(number)))

    @property
    def stored_id(self) -> str:
        """The planted shopper's id, as the lake has it."""
        return pseudonym(KEY.encode(), PLANTED) if self.pseudonymised else PLANTED

    def lists(self) -> set[str]:
        """The shoppers who have published lists."""
        with engine(self.url).connect() as connection:
            rows = connection.execute(
                sa.text("select distinct shopper_id from web.freshrank_search")
            )
            return set(rows.scalars())

    def traces(self) -> list[str]:
        """Every place below the folder, and in the published lists, that has a planted value.

        Files are searched byte by byte; Parquet files are also decoded, whatever log names them.
        """
        needles = [
            PLANTED, pseudonym(KEY.encode(), PLANTED), pseudonym(KEY.encode(), "Atlantis"),
            "Atlantis", "planted-list", "planted-act", "48271.19", "4827119", "planted@",
        ]  # fmt: skip
        found = []
        for path in sorted(each for each in self.folder.rglob("*") if each.is_file()):
            text = path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                text += _decoded(path)
            hits = [needle for needle in needles if needle in text]
            if hits:
                found.append(f"{path.relative_to(self.folder)}: {', '.join(hits)}")
        if self.stored_id in self.lists():
            found.append("the published lists")
        return found


def _decoded(path: Path) -> str:
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    statistics = [
        str(group.column(place).statistics)
        for group in groups
        for place in range(group.num_columns)
    ]
    return f"{file.read().to_pylist()} {file.schema_arrow.metadata} {statistics}"


def engine(url: str) -> sa.Engine:
    """An engine that holds no connection."""
    return sa.create_engine(url, poolclass=sa.NullPool)


def settings(folder: Path, url: str) -> Settings:
    """Everything below one folder, but the shop's database."""
    return Settings(
        lake=str(folder / "lake"),
        backup=str(folder / "backup"),
        ledger_url=f"sqlite:///{folder}/ledger.db",  # type: ignore[arg-type]
        mlflow_uri=f"sqlite:///{folder}/mlflow.db",
        connections={"tiny": url},  # type: ignore[dict-item]
        shop="tiny",
        shops=folder / "shops",
        expectations=DECLARED / "expectations",
        pseudonym_key=KEY,  # type: ignore[arg-type]
        threads=1,
    )


@contextmanager
def built(folder: Path, server: PostgresServer, *, pseudonymised: bool) -> Iterator[Forgettable]:
    """The shop after some weeks of its loop; its lists are published and its lake is backed up."""
    with postgres.database(server, "select 1") as url:
        declared = (DECLARED / "tiny" / "shop.yaml").read_text(encoding="utf-8")
        for before, after in PERSONAL.items() if pseudonymised else ():
            assert before in declared
            declared = declared.replace(before, after)
        (folder / "shops" / "tiny").mkdir(parents=True)
        (folder / "shops" / "tiny" / "shop.yaml").write_text(declared, encoding="utf-8")
        made = Forgettable(folder, settings(folder, url), url, pseudonymised)
        shop = made.installation.shop
        before_all = tiny_shop.FIRST - timedelta(days=1)
        tiny_shop.build(url, lambda: extract.install(url, shop, at=before_all), SIZE)
        _plant(url)
        for number in range(TOLD):
            made.update(number)
        made.publish(TOLD - 1)
        maintain.back_up(made.installation)
        yield made


def _plant(url: str) -> None:
    """One shopper with lists and actions in every week; one action has a negative amount."""
    with engine(url).begin() as connection:
        tiny_shop._clock(connection, tiny_shop.FIRST + timedelta(hours=1))
        connection.execute(
            sa.text("insert into web.users values (:uid, 'planted@example.org', 'Atlantis')"),
            {"uid": PLANTED},
        )
    for number in range(SIZE.weeks):
        for day in (1, 3, 5):
            _visit(url, number, day)


def _visit(url: str, number: int, day: int) -> None:
    at = week(number).start + timedelta(days=day, hours=10)
    name = f"planted-list-{number}-{day}"
    with engine(url).begin() as connection:
        tiny_shop._clock(connection, at + timedelta(hours=2))
        for place in range(SIZE.shown_a_list):
            sku = f"sku/{(place * 3 + number) % SIZE.articles}"
            row = {"name": name, "sku": sku, "uid": PLANTED, "place": place, "at": at}
            connection.execute(
                sa.text("insert into web.shown values (:name, :sku, :uid, :place, :at)"), row
            )
            if place % 4 == day % 4:
                row |= {"act": f"planted-act-{number}-{day}-{place}", "at": at + timedelta(hours=1),
                        "paid": -48271.19 if number == 1 and day == 3 else 48271.19}  # fmt: skip
                connection.execute(
                    sa.text(
                        "insert into web.actions "
                        "values (:act, 'purchase', :uid, :sku, :at, 1, :paid)"
                    ),
                    row,
                )


def _move_artifacts(store: Path, old: str, new: str) -> None:
    """MLflow's store names its artifacts by their whole paths."""
    with sqlite3.connect(store) as database:
        tables = [
            name
            for (name,) in database.execute("select name from sqlite_master where type='table'")
        ]
        for table in tables:
            for column in database.execute(f"pragma table_info({table})").fetchall():
                if "VARCHAR" in column[2] or column[2] == "TEXT":
                    database.execute(
                        f"update {table} set {column[1]} = replace({column[1]}, ?, ?) "
                        f"where instr({column[1]}, ?)",
                        (old, new, old),
                    )
    database.close()


@contextmanager
def copy_of(original: Forgettable, folder: Path, server: PostgresServer) -> Iterator[Forgettable]:
    """The same in another folder and another database."""
    shutil.copytree(original.folder, folder, dirs_exist_ok=True)
    _move_artifacts(folder / "mlflow.db", str(original.folder), str(folder))
    template = sa.make_url(original.url).database
    name = f"{template}_{folder.name}".replace("-", "_").lower()[:60]
    with server.connect("postgres") as connection:
        connection.execute(f'create database "{name}" template "{template}"')
    try:
        url = server.url(name)
        yield replace(original, folder=folder, settings=settings(folder, url), url=url)
    finally:
        with server.connect("postgres") as connection:
            connection.execute(f'drop database "{name}" with (force)')
