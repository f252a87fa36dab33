"""A lake whose valid partitions are written from a log of changes, without a database.

Benchmarks and tests of later stages begin here: extraction and validation are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from pipelines.shared import columns
from pipelines.shared.declaration import Shop, load_shop
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run
from pipelines.shared.settings import PROJECT, Settings
from shops.completejourney.package import data_files

SHOPS = PROJECT / "shops"
TIME = pa.timestamp("us", tz="UTC")
FIRST = datetime(2017, 1, 2, tzinfo=UTC)
Tables = Mapping[str, pa.Table]


def change_schema(shop: Shop, table: str) -> pa.Schema:
    """Columns of `valid/<table>`."""
    return pa.schema(
        {
            **shop.tables[table].stored_columns(),
            columns.OP: pa.string(),
            columns.COMMITTED_AT: TIME,
            columns.POSITION: pa.int64(),
            columns.TRANSACTION: pa.string(),
        }
    )


@dataclass(frozen=True)
class ValidatedLake:
    """A lake and a ledger of their own, for one shop."""

    settings: Settings
    shop: Shop

    @classmethod
    def at(cls, folder: Path, name: str, shops: Path = SHOPS, **settings: Any) -> ValidatedLake:
        """An empty one in a folder, of a shop declared under `shops`."""
        return cls(
            Settings(
                lake=str(folder / "lake"),
                ledger_url=SecretStr(f"sqlite:///{folder}/ledger.db"),
                mlflow_uri=SecretStr(f"sqlite:///{folder}/mlflow.db"),
                shop=name,
                shops=shops,
                **settings,
            ),
            load_shop(name, shops),
        )

    def run(self, first: int, last: int | None = None) -> Run:
        """A run over the steps `first` to `last`, counted from 0."""
        end = (first if last is None else last) + 1
        week = timedelta(days=7)
        return Run(self.settings, self.shop, Interval(FIRST + first * week, FIRST + end * week))

    def validated(self, number: int, rows: Tables, tables: Iterable[str] | None = None) -> None:
        """Leave a step as validation would: a partition and a manifest for every table, or some."""
        run = self.run(number)
        for table in tables or self.shop.tables:
            schema = change_schema(self.shop, table)
            found = rows.get(table, schema.empty_table()).cast(schema)
            run.lake.replace(f"valid/{table}", run.interval, found)
            counts = {"extracted": found.num_rows, "valid": found.num_rows}
            counts |= {"quarantined": 0, "duplicates": 0}
            run.ledger.record(
                Manifest("validate", table, run.interval, counts, content_hash(found))
            )


def of_step(log: Tables, number: int, since: int | None = None) -> dict[str, pa.Table]:
    """The changes of a log committed in a step, or in the steps from `since` to it.

    Step 0 also takes what was committed before it.
    """
    week = timedelta(days=7)
    low = FIRST + week * (number if since is None else since)
    if (number if since is None else since) == 0:
        low = utc("2000-01-01")
    high = FIRST + week * (number + 1)
    edges = [pa.scalar(edge, TIME) for edge in (low, high)]
    return {
        name: rows.filter(
            pc.and_(
                pc.greater_equal(rows[columns.COMMITTED_AT], edges[0]),
                pc.less(rows[columns.COMMITTED_AT], edges[1]),
            )
        )
        for name, rows in log.items()
    }


def real_log(weeks: int, share: float) -> dict[str, pa.Table]:
    """The bundled shop's first weeks as changes, straight from the wheel's files.

    With what a living shop has: commits every three hours, 0.6 % of baskets cancelled some days
    later, 1 % of lines late, 0.4 % of quantities corrected, prices that follow what was paid.
    """
    files = data_files()
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'; SET threads = 2")
    for name in ("transactions", "products", "promotions"):
        database.execute(f"CREATE VIEW {name}_file AS FROM read_parquet('{files[name]}')")
    database.execute(f"SET VARIABLE weeks = {weeks}; SET VARIABLE share = {share}")
    database.execute((Path(__file__).parent / "real_log.sql").read_text(encoding="utf-8"))
    shop = load_shop("completejourney", SHOPS)
    log = {}
    for table in ("households", "products", "order_lines", "promotions"):
        schema = change_schema(shop, table)
        found = database.sql(
            f"SELECT {', '.join(schema.names)} FROM {table} ORDER BY _position"
        ).to_arrow_table()
        log[table] = found.cast(schema)
    database.close()
    return log
