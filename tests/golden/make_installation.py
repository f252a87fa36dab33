"""Makes the small whole installation that `test_installation.py` opens.

`python -m tests.golden.make_installation` was run once, with the code at commit ba80550 (version
0.1.0), and is kept to show how; only its imports have followed the code since. The shop has three
SQLite files: a web shop with triggers, a catalogue read by cursor, and deals with triggers of a
second name. Three weeks are decided and maintained; a fourth is written into the shop, and
extracted only in a copy, of which nothing but the outcome is kept. The numbers come from a seeded
generator.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np

from pipelines import extract, loop, maintain
from pipelines.shared.declaration import load_shop
from pipelines.shared.declaration.loop import Retention
from pipelines.shared.run import Installation, Run
from tests.golden import facts

NAME = "installation-0.1.0"
MADE_BY = {"version": "0.1.0", "commit": "ba80550"}
USERS, ARTICLES, LISTS_A_DAY, SHOWN = 40, 60, 18, 8
KINDS = ("lamp", "chair", "table", "rug", "vase")
MAKERS = ("Anna", "Böhm", "Çelik", "Dvořák")

DECLARED = """
shop: golden
title: A small shop, kept as it was
sources:
  web: {connection: web, capture: trigger}
  pim: {connection: pim, capture: cursor}
  deals: {connection: deals, capture: trigger}
tables:
  users:
    source: web
    key: [uid]
    columns: {uid: string, email: string, city: string}
    personal: {email: drop, city: pseudonymise}
    new_columns: take
  shown:
    source: web
    key: [list_id, sku]
    columns: {list_id: string, sku: string, uid: string, place: int32, shown_at: timestamp}
  actions:
    source: web
    key: [action_id]
    columns: {action_id: string, type: string, uid: string, sku: string, at: timestamp, pieces: int32, paid: "decimal(10,2)"}
    ignore: [agent]
  articles:
    source: pim
    key: [sku]
    columns: {sku: string, kind: string, maker: string, amount: "decimal(10,2)", gone: bool, touched: timestamp}
    new_columns: take
    cursor: {column: touched, lag_s: 7200, deleted: gone, reconcile: true}
  promotions:
    source: deals
    key: [id]
    columns: {id: int64, sku: string, starts: timestamp, ends: timestamp, share: float64, written: timestamp}
    commit_time: written
shopper: {table: users, id: uid}
item: {table: articles, id: sku, category: kind, attributes: {maker: maker}, price: amount}
events:
  - {kind: view, grade: 1, table: actions, where: {type: view}, time: at, shopper: uid, item: sku}
  - {kind: cart, grade: 2, table: actions, where: {type: cart}, time: at, shopper: uid, item: sku}
  - {kind: purchase, grade: 3, table: actions, where: {type: purchase}, time: at, shopper: uid, item: sku, quantity: pieces, price: paid}
periods:
  - {table: promotions, item: sku, valid_from: starts, valid_until: ends, attributes: {discount: share}}
surfaces:
  - name: search
    candidates: logged
    impressions: {table: shown, group: list_id, time: shown_at, shopper: uid, item: sku, position: place}
    attribution_days: 1.0
    max_candidates: 20
    top_k: 5
interval: {anchor: 2021-03-01, days: 7}
learning: {warm_up_intervals: 2, memory_share: 0.2, negatives_per_group: 10}
gate: {min_groups: 20}
retention: {quarantine_days: 14, docs_days: 7, captured_days: 14}
"""  # noqa: E501
RULES: dict[str, list[tuple[str, int | None]]] = {
    "users": [("uid", None)],
    "shown": [("list_id", None), ("sku", None), ("place", 0)],
    "actions": [("action_id", None), ("sku", None), ("pieces", 0), ("paid", 0)],
    "articles": [("sku", None), ("amount", 0)],
    "promotions": [("sku", None), ("share", 0)],
}
"""Table → columns that are never null, or never below a number."""
TABLES = {
    "shop": """
        CREATE TABLE users (uid text PRIMARY KEY, email text, city text);
        CREATE TABLE shown (list_id text, sku text, uid text, place integer, shown_at datetime,
                            PRIMARY KEY (list_id, sku));
        CREATE TABLE actions (action_id text PRIMARY KEY, type text, uid text, sku text,
                              at datetime, pieces integer, paid numeric(10, 2), agent text);
    """,
    "catalogue": """
        CREATE TABLE articles (sku text PRIMARY KEY, kind text, maker text,
                               amount decimal(10, 2), gone boolean, touched datetime);
        CREATE INDEX touched ON articles (touched);
    """,
    "deals": """
        CREATE TABLE promotions (id bigint PRIMARY KEY, sku text, starts datetime, ends datetime,
                                 share real, written datetime);
    """,
}
CLOCKS = {"shop": "freshrank_golden_clock", "deals": "freshrank_golden_deals_clock"}


class Shop:
    """The shop's three files, and what its shoppers like."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.generator = np.random.default_rng(14)
        self.kinds = self.generator.integers(len(KINDS), size=ARTICLES)
        self.charm = self.generator.gamma(0.3, size=ARTICLES)
        self.tastes = self.generator.gamma(0.4, size=(USERS, len(KINDS)))
        for file, statements in TABLES.items():
            with closing(sqlite3.connect(folder / f"{file}.db")) as db:
                db.executescript(statements)
        self.declare()

    def declare(self) -> None:
        """Write the declaration and the suites."""
        shop = self.folder / "shops" / facts.SHOP / "shop.yaml"
        shop.parent.mkdir(parents=True)
        shop.write_text(DECLARED.lstrip(), "utf-8")
        for table, rules in RULES.items():
            suite = self.folder / "expectations" / facts.SHOP / f"{table}.yaml"
            suite.parent.mkdir(parents=True, exist_ok=True)
            lines = ["expectations:"]
            for column, least in rules:
                kind = "not_be_null" if least is None else "be_between"
                given = f"column: {column}" + ("" if least is None else f", min_value: {least}")
                lines.append(f"  - type: expect_column_values_to_{kind}")
                lines.append(f"    kwargs: {{{given}}}")
                lines.append(f"    why: the shop never writes another {column}")
            suite.write_text("\n".join(lines) + "\n", "utf-8")

    def write(self, file: str, at: datetime, statement: str, *rows: tuple[Any, ...]) -> None:
        """Run a statement for each row, in one transaction that is committed at a time."""
        with closing(sqlite3.connect(self.folder / f"{file}.db")) as db, db:
            if file in CLOCKS:
                clock = CLOCKS[file]
                if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (clock,)).fetchone():
                    db.execute(f"DELETE FROM {clock}")
                    db.execute(f"INSERT INTO {clock} VALUES (?)", (int(at.timestamp()) * 10**6,))
            if rows:
                db.executemany(statement, rows)
            else:
                db.execute(statement)

    def install(self, at: datetime | None = None) -> None:
        """Let changes be captured; the rows that are there count as of a time."""
        shop = load_shop(facts.SHOP, self.folder / "shops")
        settings = facts.settings(self.folder)
        for part in shop.parts():
            extract.install(settings.connection(part.source.connection), part, at)

    def begin(self) -> None:
        """Users, articles and promotions, the day before the first week."""
        eve = facts.FIRST - timedelta(days=1)
        users = [(f"u-{n}", f"u{n}@example.org", f"City {n % 7}") for n in range(USERS)]
        self.write("shop", eve, "INSERT INTO users VALUES (?, ?, ?)", *users)
        for number in range(ARTICLES):
            self.article(number, eve + timedelta(seconds=number))
        self.install(eve)
        self.promote(range(8), eve)

    def article(self, number: int, at: datetime) -> None:
        """One more article."""
        amount = f"{self.generator.gamma(3.0, 10.0):.2f}"
        row = (f"sku/{number}", KINDS[self.kinds[number % ARTICLES]],
               MAKERS[number % len(MAKERS)], amount, False, _text(at))  # fmt: skip
        names = "sku, kind, maker, amount, gone, touched"
        self.write(
            "catalogue", at, f"INSERT INTO articles ({names}) VALUES (?, ?, ?, ?, ?, ?)", row
        )

    def promote(self, numbers: range, at: datetime) -> None:
        """Promote some articles for ten days; the promotion is written at a time."""
        rows = [
            (n, f"sku/{(7 * n) % ARTICLES}", _text(at), _text(at + timedelta(days=10)),
             n % 5 / 10, _text(at))
            for n in numbers
        ]  # fmt: skip
        self.write("deals", at, "INSERT INTO promotions VALUES (?, ?, ?, ?, ?, ?)", *rows)

    def week(self, number: int) -> None:
        """Let a week pass: visits each day, and what happens but once."""
        start = facts.WEEKS[number].start
        drift = self.generator.gamma(0.4, size=self.tastes.shape)
        self.tastes = 0.8 * self.tastes + 0.2 * drift
        for day in range(7):
            self.day(start + timedelta(days=day))
            if day == 2:
                self.change(number, start + timedelta(days=3))
        for file in CLOCKS:
            self.write(file, facts.WEEKS[number].end, "SELECT 1")

    def change(self, number: int, at: datetime) -> None:
        """Changes of all kinds: new and gone rows, unsound ones, new columns."""
        some = (f"sku/{number}", f"sku/{number + 20}")
        price = "UPDATE articles SET amount = amount + 1.25, touched = ? WHERE sku IN (?, ?)"
        self.write("catalogue", at, price, (_text(at), *some))
        self.article(ARTICLES + number, at + timedelta(minutes=5))
        mark = "UPDATE articles SET gone = 1, touched = ? WHERE sku = ?"
        self.write("catalogue", at, mark, (_text(at + timedelta(minutes=9)), f"sku/{40 + number}"))
        self.write("catalogue", at, "DELETE FROM articles WHERE sku = ?", (f"sku/{50 + number}",))
        unsound = "UPDATE articles SET amount = -1, touched = ? WHERE sku = ?"
        self.write("catalogue", at, unsound, (_text(at + timedelta(hours=3)), f"sku/{30 + number}"))
        self.promote(range(8 * number + 8, 8 * number + 16), at)
        self.write("deals", at, "UPDATE promotions SET share = 0.9, written = ? WHERE id = ?",
                   (_text(at + timedelta(hours=1)), 8 * number))  # fmt: skip
        self.write("shop", at, "UPDATE users SET city = ? WHERE uid = ?", ("Ulm", f"u-{number}"))
        self.write(
            "shop",
            at,
            "DELETE FROM actions WHERE action_id IN "
            "(SELECT action_id FROM actions WHERE type = 'view' ORDER BY 1 LIMIT 2)",
        )
        self.write(
            "shop",
            at,
            "UPDATE actions SET pieces = -1 WHERE action_id IN "
            "(SELECT action_id FROM actions WHERE type = 'purchase' ORDER BY at DESC LIMIT 2)",
        )
        # As a log that delivers some changes twice.
        names = "_op, _committed_at, _transaction, list_id, sku, uid, place, shown_at"
        log = "freshrank_golden_changes_shown"
        self.write(
            "shop",
            at,
            f"INSERT INTO {log} ({names}) SELECT {names} FROM {log} "
            "WHERE _op = 'insert' ORDER BY _position DESC LIMIT 5",
        )
        if number == 1:
            self.write("catalogue", at, "ALTER TABLE articles ADD COLUMN colour text")
            self.write("catalogue", at, "UPDATE articles SET colour = 'red', touched = ? "
                       "WHERE sku IN (?, ?)", (_text(at + timedelta(hours=4)), *some))  # fmt: skip
            self.write("shop", at, "ALTER TABLE users ADD COLUMN level integer DEFAULT 3")
            self.install()

    def day(self, day: datetime) -> None:
        """Lists that shoppers were shown on a day, and what they did."""
        generator, shown, actions = self.generator, [], []
        wanted = self.tastes[:, self.kinds] * self.charm
        for number in range(LISTS_A_DAY):
            user = int(generator.integers(USERS))
            at = day + timedelta(seconds=int(generator.integers(6 * 3600, 20 * 3600)))
            pull = wanted[user] / wanted[user].mean()
            for place, article in enumerate(generator.choice(ARTICLES, SHOWN, replace=False)):
                who = (f"u-{user}", f"sku/{article}")
                shown.append((f"{day:%m%d}-{number}", who[1], who[0], place, _text(at)))
                steps = generator.random(3) < np.tanh(pull[article] * np.array([0.3, 0.6, 0.8]))
                for step in range(int(steps.cumprod().sum())):
                    kind = ("view", "cart", "purchase")[step]
                    moment, bought = at + timedelta(minutes=1 + 7 * step), step == 2
                    paid = f"{generator.gamma(3.0, 10.0):.2f}" if bought else None
                    actions.append(
                        (
                            f"{day:%m%d}-{number}/{article}/{kind}",
                            kind,
                            *who,
                            _text(moment),
                            1 if bought else None,
                            paid,
                            "a browser",
                        )
                    )
        late = day + timedelta(hours=23)
        self.write("shop", late, "INSERT INTO shown VALUES (?, ?, ?, ?, ?)", *shown)
        self.write("shop", late, "INSERT INTO actions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *actions)


def make(folder: Path) -> dict[str, Any]:
    """Make the installation, and say what is known of it."""
    shop = Shop(folder)
    shop.begin()
    settings = facts.settings(folder)
    for number, week in enumerate(facts.WEEKS[:3]):
        shop.week(number)
        run = Run.of(settings, facts.SHOP, week)
        loop.run_interval(run, lambda stage, line: print(f"{stage:9} {line}"))
    loop.publish(run)
    installation = Installation.open(settings, facts.SHOP)
    maintain.run(installation)
    # Raw changes expire in one table alone: what the others held can still be told.
    alone = {"tables": {"shown": installation.shop.tables["shown"]}}
    expiring = alone | {"retention": Retention(changes_days=14)}
    maintain.run(replace(installation, shop=installation.shop.model_copy(update=expiring)))
    shop.week(3)
    known = facts.of(installation)
    with TemporaryDirectory() as elsewhere:
        copy = Path(elsewhere) / NAME
        shutil.copytree(folder, copy)
        facts.relocate(copy, str(folder), str(copy))
        onward = facts.settings(copy)
        loop.run_interval(
            Run.of(onward, facts.SHOP, facts.WEEKS[3]),
            lambda stage, line: print(f"{stage:9} {line}"),
        )
        last = facts.of_last(Installation.open(onward, facts.SHOP))
    return {"made_by": MADE_BY, "known": known, "last": last}


def pack(folder: Path, archive: Path) -> None:
    """Put an installation into an archive, without the paths of where it was made."""
    facts.relocate(folder, str(folder), facts.NOWHERE)
    facts.relocate(folder, str(Path(__file__).parents[2]), "/PROJECT")
    facts.relocate(folder, f"{gettempdir()}/", "/TEMPORARY/")
    for path in folder.glob("*.db"):
        with closing(sqlite3.connect(path)) as db:
            db.execute("VACUUM")
    with tarfile.open(archive, "w:gz", compresslevel=9) as tar:
        tar.add(folder, NAME, filter=_nobody)


def _nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the name of the user who made it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def main() -> None:
    """Make it and keep it beside this file."""
    with TemporaryDirectory() as somewhere:
        folder = Path(somewhere) / NAME
        folder.mkdir()
        expected = make(folder)
        text = json.dumps(expected, indent=1, default=str)
        (folder / "expected.json").write_text(text, "utf-8")
        pack(folder, Path(__file__).parent / f"{NAME}.tar.gz")


if __name__ == "__main__":
    main()
