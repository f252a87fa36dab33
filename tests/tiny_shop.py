"""A second shop, in tests only: a web shop with text ids, logged impressions and graded events.

Its shoppers have tastes that drift, so that a ranker has something to learn and to relearn.
The numbers come from a seeded generator; nothing in it knows what Freshrank computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import sqlalchemy as sa

FIRST = datetime(2017, 1, 2, tzinfo=UTC)
KINDS = ("lamp", "chair", "table", "rug", "vase")
MAKERS = ("Anna", "Böhm", "Çelik", "Dvořák")
TABLES = """
create schema web;
create table web.users (uid text primary key, email text, city text);
create table web.articles (sku text primary key, kind text, maker text, amount numeric(10,2));
create table web.shown (
    list_id text, sku text, uid text, place integer, shown_at timestamptz,
    primary key (list_id, sku));
create table web.actions (
    action_id text primary key, type text, uid text, sku text, at timestamptz,
    pieces integer, paid numeric(10,2));
"""


@dataclass(frozen=True)
class Size:
    """How much the shop holds."""

    users: int = 60
    articles: int = 120
    lists_a_week: int = 150
    shown_a_list: int = 20
    weeks: int = 5
    seed: int = 5


def build(url: str, install: Callable[[], None], size: Size = Size()) -> None:
    """Make the shop's tables, install capture, and let `size.weeks` weeks pass.

    Args:
        url: an empty PostgreSQL database.
        install: installs change capture, after the catalogue and before the first visit.
    """
    generator = np.random.default_rng(size.seed)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("drop schema if exists web cascade")
        connection.exec_driver_sql(TABLES)
        kinds = _catalogue(connection, generator, size)
    install()
    tastes = generator.gamma(0.5, size=(size.users, len(KINDS)))
    charm = generator.gamma(1.0, size=size.articles)
    for week in range(size.weeks):
        drift = generator.gamma(0.5, size=tastes.shape)
        tastes = 0.8 * tastes + 0.2 * drift
        wanted = tastes[:, kinds] * charm
        for day in range(7):
            _day(engine, generator, size, wanted, FIRST + timedelta(weeks=week, days=day))
    with engine.begin() as connection:
        end = FIRST + timedelta(weeks=size.weeks)
        name = connection.engine.url.database
        connection.exec_driver_sql(f"alter database {name} set freshrank.clock = '{end:%F %T%z}'")
    engine.dispose()


def _catalogue(connection: sa.Connection, generator: np.random.Generator, size: Size) -> np.ndarray:
    """Fill users and articles; returns each article's kind, as a place in `KINDS`."""
    _clock(connection, FIRST - timedelta(days=1))
    connection.execute(
        sa.text("insert into web.users values (:uid, :email, :city)"),
        [
            {"uid": f"u-{n}", "email": f"u{n}@example.org", "city": f"City {n % 7}"}
            for n in range(size.users)
        ],
    )
    kinds = generator.integers(len(KINDS), size=size.articles)
    connection.execute(
        sa.text("insert into web.articles values (:sku, :kind, :maker, :amount)"),
        [
            {
                "sku": f"sku/{n}",
                "kind": KINDS[kinds[n]],
                "maker": MAKERS[n % len(MAKERS)],
                "amount": round(float(generator.gamma(3.0, 10.0)), 2),
            }
            for n in range(size.articles)
        ],
    )
    return kinds


def _day(
    engine: sa.Engine,
    generator: np.random.Generator,
    size: Size,
    wanted: np.ndarray,
    day: datetime,
) -> None:
    shown, actions = [], []
    for number in range(size.lists_a_week // 7):
        user = int(generator.integers(size.users))
        at = day + timedelta(seconds=int(generator.integers(8 * 3600, 22 * 3600)))
        chosen = generator.choice(size.articles, size.shown_a_list, replace=False)
        name = f"{day:%m%d}-{number}"
        pull = wanted[user, chosen] / (wanted[user].mean() + 1e-9)
        for place, article in enumerate(chosen):
            item = {"uid": f"u-{user}", "sku": f"sku/{article}"}
            shown.append(item | {"list_id": name, "place": place, "shown_at": at})
            depth = int(
                (generator.random(3) < np.tanh(pull[place] * np.array([0.25, 0.6, 0.8])))
                .cumprod()
                .sum()
            )
            for step, kind in enumerate(("view", "cart", "purchase")[:depth]):
                moment = at + timedelta(minutes=1 + 7 * step, hours=6 * (step == 2))
                paid = round(float(generator.gamma(3.0, 10.0)), 2) if step == 2 else None
                actions.append(
                    item
                    | {
                        "action_id": f"{name}/{article}/{kind}",
                        "type": kind,
                        "at": moment,
                        "pieces": 1 if step == 2 else None,
                        "paid": paid,
                    }
                )
    with engine.begin() as connection:
        _clock(connection, day + timedelta(hours=23))
        connection.execute(
            sa.text("insert into web.shown values (:list_id, :sku, :uid, :place, :shown_at)"), shown
        )
    late = [action for action in actions if action["at"] >= day + timedelta(hours=23)]
    prompt = [action for action in actions if action["at"] < day + timedelta(hours=23)]
    for moment, some in ((23, prompt), (33, late)):
        with engine.begin() as connection:
            _clock(connection, day + timedelta(hours=moment))
            if some:
                connection.execute(
                    sa.text(
                        "insert into web.actions "
                        "values (:action_id, :type, :uid, :sku, :at, :pieces, :paid)"
                    ),
                    some,
                )


def _clock(connection: sa.Connection, moment: datetime) -> None:
    connection.execute(
        sa.text("select set_config('freshrank.clock', :at, true)"), {"at": moment.isoformat()}
    )
