"""The small shop: its SQLite file, its declaration and suites, and what writes into it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from benchmarks.chaos.history import COLUMNS, FIRST, Transaction, Week
from pipelines import extract
from pipelines.shared.declaration import load_shop
from pipelines.shared.intervals import Interval
from pipelines.shared.settings import Settings

SHOP: Final = "chaos"
SURFACE: Final = "basket"
DECLARED: Final = """
shop: chaos
title: A small shop to which everything happens
sources:
  web: {connection: web, capture: trigger}
tables:
  customers:
    key: [cid]
    columns: {cid: string, email: string, city: string}
    personal: {email: drop}
  products:
    key: [sku]
    columns: {sku: string, kind: string, name: string, price: float64, weight: float64}
  order_lines:
    key: [line]
    columns: {line: string, basket: string, cid: string, sku: string, at: timestamp, pieces: int32, paid: "decimal(10,2)"}
shopper: {table: customers, id: cid}
item: {table: products, id: sku, category: kind, price: price}
events:
  - {kind: purchase, grade: 1, table: order_lines, time: at, shopper: cid, item: sku, group: basket, quantity: pieces, price: paid}
surfaces:
  - {name: basket, candidates: generated, groups_of: purchase, attribution_days: 0.0, max_candidates: 20, top_k: 5}
interval: {anchor: 2021-03-01, days: 7}
learning: {warm_up_intervals: 2, memory_share: 0.2, negatives_per_group: 10}
gate: {min_groups: 10, confidence: 0.5, memory_margin: 0.05}
"""  # noqa: E501
SUITE: Final = """
expectations:
  - type: expect_column_values_to_not_be_null
    kwargs: {{column: {key}}}
    why: a row has a key
"""
PIECES: Final = """
  - type: expect_column_values_to_be_between
    kwargs: {column: pieces, min_value: 0}
    why: nobody buys less than nothing
"""
TABLES: Final = """
CREATE TABLE customers (cid text PRIMARY KEY, email text, city text);
CREATE TABLE products (sku text PRIMARY KEY, kind text, name text, price real, weight real);
CREATE TABLE order_lines (line text PRIMARY KEY, basket text, cid text, sku text, at datetime,
                          pieces integer, paid numeric(10, 2));
"""


@dataclass(frozen=True)
class Home:
    """One installation of the shop, in a folder of its own."""

    folder: Path

    @property
    def source(self) -> Path:
        """The shop's database."""
        return self.folder / "shop.db"

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.folder / "ledger.db"

    @property
    def mlflow(self) -> Path:
        """MLflow's file."""
        return self.folder / "mlflow.db"

    @property
    def lake(self) -> Path:
        """The shop's part of the lake."""
        return self.folder / "lake" / SHOP

    @property
    def settings(self) -> Settings:
        """Settings that know nothing of this machine's own installation."""
        return Settings.model_validate(
            {
                "lake": str(self.folder / "lake"),
                "backup": None,
                "ledger_url": f"sqlite:///{self.ledger}",
                "mlflow_uri": f"sqlite:///{self.mlflow}",
                "connections": {"web": f"sqlite:///{self.source}"},
                "shop": SHOP,
                "shops": self.folder / "shops",
                "expectations": self.folder / "expectations",
                "threads": 1,
                "memory_limit": "1GB",
            }
        )

    def found(self) -> None:
        """Make the shop: tables without rows, and everything declared."""
        self.folder.mkdir(parents=True)
        with closing(sqlite3.connect(self.source)) as db:
            db.executescript(TABLES)
        shop = self.folder / "shops" / SHOP / "shop.yaml"
        suites = self.folder / "expectations" / SHOP
        shop.parent.mkdir(parents=True)
        suites.mkdir(parents=True)
        shop.write_text(DECLARED.lstrip(), "utf-8")
        for table, (key, *_) in COLUMNS.items():
            rules = SUITE.format(key=key) + (PIECES[1:] if table == "order_lines" else "")
            (suites / f"{table}.yaml").write_text(rules.lstrip(), "utf-8")
        extract.install(
            self.settings.connection("web"), load_shop(SHOP, self.settings.shops),
            FIRST - timedelta(days=1),
        )  # fmt: skip

    def commit(self, transaction: Transaction) -> None:
        """Commit a transaction of the shop at its time."""
        with closing(sqlite3.connect(self.source, timeout=60)) as db, db:
            self._clock(db, transaction.at)
            for change in transaction.changes:
                key, *others = COLUMNS[change.table]
                if change.op == "delete":
                    db.execute(f"DELETE FROM {change.table} WHERE {key} = ?", (change.key,))
                elif change.op == "update":
                    named = ", ".join(f"{name} = ?" for name in others)
                    statement = f"UPDATE {change.table} SET {named} WHERE {key} = ?"
                    db.execute(statement, (*change.row[1:], change.key))
                else:
                    holes = ", ".join("?" * len(change.row))
                    db.execute(f"INSERT INTO {change.table} VALUES ({holes})", change.row)

    def pass_time(self, until: datetime) -> None:
        """Let the shop's clock show a time."""
        with closing(sqlite3.connect(self.source, timeout=60)) as db, db:
            self._clock(db, until)

    def _clock(self, db: sqlite3.Connection, at: datetime) -> None:
        db.execute("DELETE FROM freshrank_chaos_clock")
        db.execute("INSERT INTO freshrank_chaos_clock VALUES (?)", (int(at.timestamp()) * 10**6,))


def interval_of(week: Week) -> Interval:
    """The week as an interval."""
    return Interval(week.start, week.end)
