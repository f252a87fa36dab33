"""Where the values of features come from: for people, by the code that serves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from pipelines.features import assemble, candidates, catalogue
from pipelines.features.engines import engine
from pipelines.features.engines.base import Engine, Table
from pipelines.features.known import read_known
from pipelines.features.moment import AsOf
from pipelines.features.state import storage
from pipelines.features.state.storage import Layout
from pipelines.inspect.feature_dictionary import counters_of
from pipelines.shared.columns import ITEM, SHOPPER
from pipelines.shared.errors import NotThere
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation, Run


@dataclass(frozen=True)
class ExplainedItem:
    """The features of one item for one shopper at one time."""

    item: Any
    rank: int | None
    """Among the shopper's candidates, from 1; None where it is none of them."""
    values: dict[str, Any]
    """Feature → value, as a ranker gets it."""
    counters: dict[str, Any]
    """Counter → value, of the counters that the features read."""


@dataclass(frozen=True)
class Explanation:
    """Some items for one shopper at one time."""

    shopper: str
    at: datetime
    known_until: datetime
    """The start of the step that the time lies in: what was committed before it counts."""
    items: tuple[ExplainedItem, ...]


def show(
    installation: Installation, shopper: str, at: datetime, item: str | None = None, most: int = 5
) -> Explanation:
    """The features of a shopper's best candidates, or of one item, at a time.

    The values are those that a group of that time gets: by the same code, from what had been
    committed before the step that the time lies in. `item` need be no candidate; None takes the
    first `most` candidates.

    Raises:
        NotThere: shopper or item are unknown at that time, or nothing was folded before it.
    """
    shop = installation.shop
    layout = Layout(shop)
    step = shop.grid.step_of(at)
    run = installation.run(step)
    before = _folded_before(run, step)
    with engine(run.settings) as opened:
        known = read_known(run, opened, layout, AsOf(step.start, before))
        who = _one(opened, SHOPPER, layout.shopper, shopper)
        everyone = opened.load(storage.read(run, storage.SHOPPERS, layout.shoppers, before))
        ids = everyone.select(SHOPPER).union(known.counters.shoppers.select(SHOPPER))
        _require(opened, who, ids, layout.shopper, f"shopper {shopper!r}", at)
        capped, offered = None, None
        if shop.surface.candidates == "generated":
            capped, offered = shop.surface.max_candidates, known.offered
        proposed = candidates.propose(opened, known, layout, who, capped, offered)
        pairs = proposed.pairs
        if item is None:
            pairs = pairs.filter(pairs.prior_rank <= most).select(*assemble.PAIR)
        else:
            what = _one(opened, ITEM, layout.item, item)
            _require(opened, what, known.counters.items, layout.item, f"item {item!r}", at)
            pairs = who.cross_join(what)
        pairs = opened.materialize(pairs)
        shown = assemble.visits(who, at)
        joined = assemble.joined(opened, shown, pairs, known, proposed, layout)
        built = assemble.build(opened, shown, pairs, known, proposed, layout)
        items = _explained(opened, layout, joined, built)
    return Explanation(shopper, at, step.start, items)


def _explained(
    opened: Engine, layout: Layout, joined: Table, built: Table
) -> tuple[ExplainedItem, ...]:
    features = catalogue.catalogue(layout)
    read = list(dict.fromkeys(name for each in features for name in counters_of(each)))
    kinds = joined.schema().to_pyarrow()
    counted, valued = (
        opened.arrow(table, schema, ITEM).to_pylist()
        for table, schema in (
            (joined, pa.schema([kinds.field(name) for name in {ITEM, "prior_rank", *read}])),
            (built, pa.schema({ITEM: layout.item, **catalogue.types(layout)})),
        )
    )
    items = [
        ExplainedItem(
            counters[ITEM],
            counters["prior_rank"],
            {each.name: values[each.name] for each in features},
            {name: counters[name] for name in read},
        )
        for counters, values in zip(counted, valued, strict=True)
    ]
    return tuple(sorted(items, key=lambda each: each.rank or 0))


def _folded_before(run: Run, step: Interval) -> Interval:
    """The step that ends where this one begins."""
    manifests = run.ledger.manifests("features", run.shop.surface.name)
    folded = sorted(manifest.interval for manifest in manifests)
    before = next((done for done in folded if done.end == step.start), None)
    if before is None:
        span = (
            f"from {folded[0].end:%Y-%m-%d} to {folded[-1].end + run.shop.grid.step:%Y-%m-%d}"
            if folded
            else "at no time: features ran for no interval yet"
        )
        raise NotThere(
            f"{run.shop.shop}: features at a time of {step} need the step before it, which has "
            f"none; they are known {span}. Choose another time or `python -m pipelines run`"
        )
    return before


def _one(opened: Engine, name: str, kind: pa.DataType, value: str) -> Table:
    try:
        typed = pa.scalar(value).cast(kind)
    except pa.ArrowInvalid:
        raise NotThere(f"{name} {value!r} is no {kind}, which the shop's ids are") from None
    return opened.load(pa.table({name: pa.array([typed.as_py()], kind)}))


def _require(
    opened: Engine, wanted: Table, there: Table, kind: pa.DataType, what: str, at: datetime
) -> None:
    if opened.count(wanted.semi_join(there, wanted.columns[0])) == 0:
        ids = there.select(wanted.columns[0]).distinct().order_by(wanted.columns[0]).limit(3)
        some = opened.arrow(ids, pa.schema({wanted.columns[0]: kind}), wanted.columns[0])
        known = ", ".join(str(each) for each in some[0].to_pylist()) or "none at all"
        raise NotThere(f"{what} is not known at {at:%Y-%m-%d %H:%M} UTC; known are {known}, …")
