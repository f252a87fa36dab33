"""What happens in a small shop, week by week: drawn from a seed before anything is written.

The history is the oracle's truth: it says which changes were committed in which week, and which of
their rows are unsound. It knows nothing of Freshrank.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, Final, Literal

Op = Literal["insert", "update", "delete"]
FIRST: Final = datetime(2021, 3, 1, tzinfo=UTC)
WEEK: Final = timedelta(days=7)
CUSTOMERS, PRODUCTS, BASKETS_A_DAY = 30, 50, 12
KINDS: Final = ("lamp", "chair", "table", "rug", "vase")
COLUMNS: Final = {
    "customers": ("cid", "email", "city"),
    "products": ("sku", "kind", "name", "price", "weight"),
    "order_lines": ("line", "basket", "cid", "sku", "at", "pieces", "paid"),
}
"""Table → columns; the first is the key."""
HOSTILE_IDS: Final = (
    "it's \"quoted\"", "two\nlines", "../../etc/passwd", "%2e%2e%2f", "a,b;c|d", "NULL", "'--",
    "interval_start=2021", "ünï‮cödé", " blank ", "tab\tid", "back\\slash", "{brace}", "",
)  # fmt: skip
"""Ids that a text column may hold; none of them is unsound."""
HOSTILITIES: Final = ("ids", "megabyte", "years", "infinity", "heavy", "empty", "deletes")


@dataclass(frozen=True)
class Change:
    """One row that a transaction inserts, updates or deletes."""

    table: str
    op: Op
    row: tuple[Any, ...]
    """In the order of `COLUMNS`; of a delete as it was before."""
    sound: bool = True
    """Whether the shop's suites accept it."""

    @property
    def key(self) -> Any:
        """The row's key."""
        return self.row[0]


@dataclass(frozen=True)
class Transaction:
    """Changes that are committed together."""

    at: datetime
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Week:
    """A week: what was committed in it, and what is hostile about it."""

    start: datetime
    hostile: tuple[str, ...]
    transactions: tuple[Transaction, ...]

    @property
    def end(self) -> datetime:
        """Its end, itself left out."""
        return self.start + WEEK

    @property
    def changes(self) -> Iterable[Change]:
        """All its changes, in the order of their commits."""
        return (change for each in self.transactions for change in each.changes)


def history(seed: int, weeks: int, heavy: int) -> list[Week]:
    """Draw a history; the first week begins with the shop's first rows.

    Args:
        heavy: events of the one shopper who has very many, in a week of her own.
    """
    return _History(seed, weeks, heavy).weeks()


class _History:
    def __init__(self, seed: int, weeks: int, heavy: int) -> None:
        self.random = random.Random(f"history {seed}")  # noqa: S311 -- the same history each time
        self.count, self.heavy = weeks, heavy
        self.rows: dict[str, dict[Any, tuple[Any, ...]]] = {table: {} for table in COLUMNS}
        self.taste = [[self.random.gammavariate(0.4, 1) for _ in KINDS] for _ in range(CUSTOMERS)]
        self.numbers = dict.fromkeys(COLUMNS, 0)
        self.charm: dict[str, float] = {}

    def weeks(self) -> list[Week]:
        # The first model has to exist before nothing comes at all.
        empty, deletes = self.random.sample(range(2, self.count), 2)
        busy = [number for number in range(1, self.count) if number != empty]
        spread = [*HOSTILITIES[:5]]
        self.random.shuffle(spread)
        hostile: list[tuple[str, ...]] = [()] * self.count
        for place, kind in enumerate(spread):
            week = busy[place % len(busy)]
            hostile[week] = (*hostile[week], kind)
        hostile[empty] = ("empty",)
        hostile[deletes] = (*hostile[deletes], "deletes")
        return [self._week(number, hostile[number]) for number in range(self.count)]

    def _week(self, number: int, hostile: tuple[str, ...]) -> Week:
        start = FIRST + number * WEEK
        transactions = []
        if number == 0:
            transactions.append(self._begin(start))
        if "empty" not in hostile:
            for day in range(7):
                at = start + timedelta(days=day, hours=23)
                if "deletes" not in hostile:
                    transactions.append(Transaction(at, tuple(self._day(at))))
                if day == 2:
                    changes = (*self._moves(at), *self._hostile(hostile, at))
                    transactions.append(Transaction(at + timedelta(minutes=30), changes))
                if day == 4 and "deletes" in hostile:
                    transactions.append(Transaction(at, tuple(self._deletes())))
        return Week(start, hostile, tuple(transactions))

    def _begin(self, start: datetime) -> Transaction:
        changes = []
        for number in range(CUSTOMERS):
            row = (f"c-{number}", f"c{number}@example.org", f"City {number % 7}")
            changes.append(self._put("customers", "insert", row))
        changes += [self._product() for _ in range(PRODUCTS)]
        return Transaction(start, tuple(changes))

    def _put(self, table: str, op: Op, row: tuple[Any, ...], sound: bool = True) -> Change:
        if op == "delete":
            row = self.rows[table].pop(row[0])
        else:
            self.rows[table][row[0]] = row
        return Change(table, op, row, sound)

    def _product(self, sku: str | None = None, **given: Any) -> Change:
        number = self.numbers["products"] = self.numbers["products"] + 1
        price = given.get("price", round(self.random.gammavariate(3, 10), 2))
        row = (
            f"sku/{number}" if sku is None else sku, KINDS[number % len(KINDS)],
            given.get("name", f"Thing {number}"), price,
            given.get("weight", round(self.random.random(), 3)),
        )  # fmt: skip
        return self._put("products", "insert", row)

    def _line(self, cid: str, sku: str, at: str, basket: str, pieces: int = 1) -> Change:
        number = self.numbers["order_lines"] = self.numbers["order_lines"] + 1
        row = (f"l-{number}", basket, cid, sku, at, pieces, f"{self.random.gammavariate(3, 9):.2f}")
        return self._put("order_lines", "insert", row, pieces >= 0)

    def _day(self, at: datetime) -> Iterable[Change]:
        products = list(self.rows["products"].values())
        for number in range(BASKETS_A_DAY):
            customer = self.random.randrange(CUSTOMERS)
            if f"c-{customer}" not in self.rows["customers"]:
                continue
            wanted = list(accumulate(self._pull(customer, row) for row in products))
            moment = at - timedelta(hours=self.random.uniform(1, 16))
            if self.random.random() < 0.03:
                moment -= timedelta(days=self.random.randint(2, 15))  # It arrives late.
            basket = f"{at:%m%d}-{number}"
            chosen = {row[0] for row in self.random.choices(products, cum_weights=wanted, k=5)}
            for sku in sorted(chosen):
                yield self._line(f"c-{customer}", sku, _text(moment), basket)

    def _pull(self, customer: int, product: tuple[Any, ...]) -> float:
        """How much a customer wants a product: of a kind she likes, and popular."""
        charm = self.charm.setdefault(product[0], self.random.gammavariate(0.3, 1))
        return self.taste[customer][KINDS.index(product[1])] * charm + 1e-3

    def _moves(self, at: datetime) -> Iterable[Change]:
        """Changes of all kinds that no insert is: new prices, rows that go, rows that break."""
        for row in self.random.sample(sorted(self.rows["products"].values()), 3):
            price = (round(float(row[3] or 1.0) + 1.25, 2),)
            yield self._put("products", "update", (*row[:3], *price, row[4]))
        yield self._product()
        some = self.random.sample(sorted(self.rows["customers"].values()), 3)
        yield self._put("customers", "update", (*some[0][:2], f"Ulm {at:%m%d}"))
        lines = list(self.rows["order_lines"].values())
        for row in lines[-2:]:
            yield self._put("order_lines", "update", (*row[:5], -1, row[6]), sound=False)
        for row in self.random.sample(lines[:-2], min(2, len(lines[:-2]))):
            yield self._put("order_lines", "delete", row)

    def _deletes(self) -> Iterable[Change]:
        lines = list(self.rows["order_lines"].values())
        for row in self.random.sample(lines, len(lines) // 5):
            yield self._put("order_lines", "delete", row)
        for row in self.random.sample(sorted(self.rows["products"].values()), 3):
            yield self._put("products", "delete", row)
        for row in self.random.sample(sorted(self.rows["customers"].values()), 2):
            yield self._put("customers", "delete", row)

    def _hostile(self, kinds: tuple[str, ...], at: datetime) -> Iterable[Change]:
        when = _text(at - timedelta(hours=5))
        if "ids" in kinds:
            for number, text in enumerate(HOSTILE_IDS):
                yield self._put("customers", "insert", (text, "x@example.org", text))
                yield self._product(text, name=text)
                yield self._line(text, text, when, f"hostile '{number}\n../")
                yield self._line(f"c-{number}", text, when, text)
        if "megabyte" in kinds:
            yield self._product("sku/m" + "m" * 1000, name="M" * (1 << 20))
            yield self._product("sku/large", name="ä\n'" * (1 << 18))
            yield self._line("c-1", "sku/large", when, "b" * 1000)
        if "years" in kinds:
            for number, year in enumerate(_YEARS):
                yield self._line("c-2", "sku/2", year, f"year {number}")
        if "infinity" in kinds:
            for number, price in enumerate((float("inf"), 1e308, 5e-324, None)):
                yield self._product(f"sku/inf {number}", price=price, weight=price)
                yield self._line("c-3", f"sku/inf {number}", when, "infinite")
            # SQLite keeps no NaN: it becomes NULL.
            yield self._product("sku/minus", weight=float("-inf"))
        if "heavy" in kinds:
            skus = sorted(self.rows["products"])
            for number in range(self.heavy):
                moment = at - timedelta(seconds=20 * (1 + number % 20_000))
                sku = skus[number % len(skus)]
                yield self._line("c-4", sku, _text(moment), f"heavy {number // 9}")


_YEARS: Final = (
    "0001-01-01 00:00:00", "0001-01-01 00:00:00.000001", "9999-12-31 23:59:59.999999",
    "1969-12-31 23:59:59", "2100-02-28 10:00:00",
)  # fmt: skip


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
