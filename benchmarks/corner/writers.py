"""Writers that keep the corner shop busy."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from benchmarks.corner.modes import GOODS, SALES
from benchmarks.corner.shop import Corner


class Busy:
    """Shop assistants at work: threads that write to both tables in every transaction.

    Goods `hot …` are counted up by all of them in turn; others come, change, are renamed and go;
    some transactions are rolled back.
    """

    def __init__(self, corner: Corner, count: int = 3, pause_s: float = 0.004) -> None:
        self._corner, self._pause = corner, pause_s
        self._stop, self.open = threading.Event(), threading.Event()
        self.open.set()
        """While it is clear, no transaction is open, once `paused`."""
        self._own = [threading.Lock() for _ in range(count)]
        self.failed: list[BaseException] = []
        self.written = 0
        name = uuid.uuid4().hex[:6]
        self._threads = [
            threading.Thread(target=self._work, args=[f"{name} {number}", number])
            for number in range(count)
        ]

    def __enter__(self) -> Busy:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.open.set()
        for each in self._threads:
            each.join()
        if self.failed:
            raise self.failed[0]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody writes inside the block."""
        self.open.clear()
        for lock in self._own:
            lock.acquire()
        try:
            yield
        finally:
            self.open.set()
            for lock in self._own:
                lock.release()

    def work_on(self, transactions: int) -> None:
        """Wait until so many more are committed."""
        until = self.written + transactions
        while self.written < until and not self.failed:
            time.sleep(0.002)

    def _work(self, name: str, writer: int) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                self.open.wait()
                number += 1
                with self._own[writer]:
                    self._serve(name, number)
                time.sleep(self._pause)
        except BaseException as error:  # noqa: BLE001 -- raised where the block ends
            self.failed.append(error)

    def _serve(self, name: str, number: int) -> None:
        corner = self._corner
        goods, sales = corner.tables[GOODS], corner.tables[SALES]
        own = f"{name}/{number % 7}"
        with suppress(_Undone), corner.transaction() as connection:
            touched = corner.now()
            hot = goods.update().where(goods.c.sku == f"hot {number % 3}")
            connection.execute(hot.values(stock=goods.c.stock + 1, touched=touched))
            corner.put(connection, own, note=f"note {number}", amount=number % 100, stock=number)
            sale = {"basket": hash((name, number)) % 2**40, "sku": own, "touched": touched}
            connection.execute(sales.insert().values(shopper=name, **sale))
            if number % 3 == 0:
                self._rename(connection, own, f"{own}!")
            if number % 4 == 0:
                corner.erase(connection, f"{own}!")
            if number % 5 == 0:
                raise _Undone
        self.written += number % 5 > 0

    def _rename(self, connection: sa.Connection, sku: str, to: str) -> None:
        goods = self._corner.tables[GOODS]
        self._corner.erase(connection, to)
        renamed = goods.update().where(goods.c.sku == sku)
        connection.execute(renamed.values(sku=to, touched=self._corner.now()))


class _Undone(Exception):
    """The transaction is not to be."""
