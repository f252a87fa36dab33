"""The year as it was, and two stress years made from it: an abrupt change and a return.

All three are logs of changes (`tests.features.partitions.real_log`), so that their features are
made by the features stage as in service (`replayed`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.progress import Progress

from benchmarks.validated_lake import ValidatedLake, of_step, real_log
from pipelines import features
from pipelines.shared import columns as c

SHOP: Final = "completejourney"
Log = dict[str, pa.Table]
WEEK: Final = timedelta(days=7)
_SEED: Final = 5


def replayed(
    home: Path, weeks: int, share: float, threads: int, say: Console, log: Log | None = None
) -> ValidatedLake:
    """The features of a year's weeks, or a log's, in a lake; weeks on record stand as they are."""
    home.mkdir(parents=True, exist_ok=True)
    shelf = ValidatedLake.at(home, SHOP, threads=threads)
    run = shelf.run(0)
    known = {each.interval for each in run.ledger.manifests("features", run.shop.surface.name)}
    missing = [week for week in range(weeks) if shelf.run(week).interval not in known]
    if missing:
        log = log or real_log(weeks, share)
        with Progress(console=say, transient=True) as progress:
            for week in progress.track(missing, description=f"features of {home.name}"):
                shelf.validated(week, of_step(log, week))
                features.run(shelf.run(week))
    return shelf


def taste_change(log: Log, since: datetime) -> Log:
    """From `since` on, shoppers want other categories: the categories are permuted at random.

    A product is replaced by the one of the same place, by lines sold before, in the category that
    takes its category's stead. What was bought before keeps standing: every shopper's history,
    and every item's popularity, is suddenly about something else.
    """
    lines = log["order_lines"].to_pandas()
    later = (lines["ordered_at"] >= _naive(lines, since)).to_numpy()
    category = log["products"].to_pandas().drop_duplicates("product_id").set_index("product_id")
    shelf = lines[~later].groupby("product_id").size().rename("sold").to_frame()
    shelf["category"] = category["product_category"].reindex(shelf.index).fillna("?")
    shelf = shelf.reset_index().sort_values(["sold", "product_id"], ascending=[False, True])
    shelf["place"] = shelf.groupby("category").cumcount()
    names = np.sort(shelf["category"].unique())
    moved = dict(zip(names, np.random.default_rng(_SEED).permutation(names), strict=True))
    size = shelf.groupby("category").size()
    target = shelf["category"].map(moved)
    shelf["target"] = target
    shelf["target_place"] = np.minimum(shelf["place"], target.map(size) - 1)
    stead = shelf.merge(
        shelf[["category", "place", "product_id"]],
        left_on=["target", "target_place"],
        right_on=["category", "place"],
        suffixes=("", "_new"),
    ).set_index("product_id")["product_id_new"]
    changed = lines["product_id"].map(stead).fillna(lines["product_id"]).astype("int64")
    products = np.where(later, changed, lines["product_id"])
    return {**log, "order_lines": _with_products(log["order_lines"], products)}


def early_return(log: Log, since: datetime, early: datetime, weeks: int) -> Log:
    """What was bought in some early weeks is bought again, in the place of some later weeks.

    Orders keep their shoppers and products; their ids get a mark, their times are moved.
    """
    lines = log["order_lines"]
    committed = lines[c.COMMITTED_AT].to_pandas()
    length = weeks * WEEK
    replaced = ((committed >= since) & (committed < since + length)).to_numpy()
    copied = ((committed >= early) & (committed < early + length)).to_numpy()
    again = lines.filter(pa.array(copied)).to_pandas()
    move = pd.Timedelta(since - early)
    again[c.COMMITTED_AT] += move
    again["ordered_at"] += move
    again["order_id"] += 10**12
    kept = lines.filter(pa.array(~replaced))
    both = pa.concat_tables([kept, pa.Table.from_pandas(again, lines.schema, preserve_index=False)])
    ordered = both.sort_by([(c.COMMITTED_AT, "ascending"), (c.POSITION, "ascending")])
    place = ordered.schema.get_field_index(c.POSITION)
    numbers = pa.array(np.arange(1, ordered.num_rows + 1), pa.int64())
    return {**log, "order_lines": ordered.set_column(place, c.POSITION, numbers)}


def _with_products(lines: pa.Table, products: np.ndarray) -> pa.Table:
    place = lines.schema.get_field_index("product_id")
    return lines.set_column(place, "product_id", pa.array(products, lines.schema.field(place).type))


def _naive(lines: pd.DataFrame, moment: datetime) -> pd.Timestamp:
    """The moment as the frame's times are: with a zone or without."""
    stamp = pd.Timestamp(moment)
    return stamp if lines["ordered_at"].dt.tz is not None else stamp.tz_localize(None)
