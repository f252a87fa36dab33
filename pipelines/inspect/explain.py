"""What the features are and where a value comes from: for people, by the code that serves."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import ibis
import pyarrow as pa

from pipelines.features import assemble, catalogue
from pipelines.features.catalogue import Feature
from pipelines.features.engines import engine
from pipelines.features.engines.base import Engine, Table, attach
from pipelines.features.moment import AsOf
from pipelines.features.state import storage
from pipelines.features.state.storage import Layout
from pipelines.shared.columns import ITEM, SHOPPER
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import PermanentError
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Installation, Run


class NotThere(PermanentError):
    """The feature, shopper, item or time that was asked for is not there."""


@dataclass(frozen=True)
class Explained:
    """The features of one item for one shopper at one time."""

    item: Any
    rank: int | None
    """Among the shopper's candidates, from 1; None where it is none of them."""
    values: dict[str, Any]
    """Feature → value, as a ranker gets it."""
    counters: dict[str, Any]
    """Counter → value, of the counters that the features read."""


@dataclass(frozen=True)
class Shown:
    """Some items for one shopper at one time."""

    shopper: str
    at: datetime
    known_until: datetime
    """The start of the step that the time lies in: what was committed before it counts."""
    items: tuple[Explained, ...]


def feature(shop: Shop, name: str) -> Feature:
    """A feature of a shop by its name.

    Raises:
        NotThere: there is none; names the nearest ones.
    """
    found = {each.name: each for each in catalogue.catalogue(Layout(shop))}
    if name not in found:
        near = difflib.get_close_matches(name, found, n=3) or sorted(found)[:3]
        raise NotThere(
            f"shop {shop.shop} has no feature {name!r}; the nearest are {', '.join(near)}. "
            "`python -m pipelines features list` shows all"
        )
    return found[name]


def families(shop: Shop) -> Iterator[tuple[str, list[Feature]]]:
    """The features of a shop by family, in the catalogue's order."""
    order = list(dict.fromkeys(each.family for each in catalogue.catalogue(Layout(shop))))
    by_family = sorted(catalogue.catalogue(Layout(shop)), key=lambda each: order.index(each.family))
    for family, found in groupby(by_family, key=lambda each: each.family):
        yield family, list(found)


def counters_of(feature: Feature) -> tuple[str, ...]:
    """The columns of the wide row that a feature's expression reads, in the order of reading."""
    reads = _Reads()
    feature.expression(reads)
    return tuple(reads.names)


class _Reads:
    """A row that has every column and remembers which were asked for."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def __getitem__(self, name: str) -> Any:
        self.names[name] = None
        return ibis.table({name: "float64"}, name="row")[name]

    __getattr__ = __getitem__


def dictionary(shop: Shop) -> str:
    """The data dictionary of a shop's features, as Markdown."""
    found = list(families(shop))
    number = sum(len(members) for _, members in found)
    lines = [
        f"# Features of {shop.title}",
        "",
        "Made by `python -m pipelines features list --markdown`; change"
        " `pipelines/features/catalogue.py`, not this page.",
        "",
        f"{number} features of {len(found)} families. *Reads* are the counters behind a feature:"
        " `si_` shopper × item, `it_` item, `sh_` shopper, `sc_` shopper × category, `sa_`"
        " shopper × attribute, `all_` the shop, `co_` bought together. A feature that cannot be"
        " known is null.",
    ]
    for family, members in found:
        lines += [
            "",
            f"## {family}",
            f"The idea: {members[0].idea}.",
            "",
            "| feature | grain | unit | type | meaning | reads |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| `{each.name}` | {each.grain} | {each.unit} | {each.type} | {each.meaning} "
            f"| {', '.join(f'`{name}`' for name in counters_of(each))} |"
            for each in members
        ]
    return "\n".join(lines) + "\n"


def show(
    installation: Installation, shopper: str, at: datetime, item: str | None = None, most: int = 5
) -> Shown:
    """The features of a shopper's best candidates, or of one item, at a time.

    The values are those that a group of that time gets: by the same code, from what had been
    committed before the step that the time lies in.

    Args:
        shopper: an id, as text.
        item: an item's id, candidate or not; None takes the first `most` candidates.

    Raises:
        NotThere: shopper or item are unknown at that time, or nothing was folded before it.
    """
    shop = installation.shop
    layout = Layout(shop)
    step = _step_of(shop, at)
    run = installation.run(step)
    before = _folded_before(run, step)
    with engine(run.settings) as opened:
        known = assemble.know(run, opened, layout, AsOf(step.start, before))
        who = _one(opened, SHOPPER, layout.shopper, shopper)
        everyone = opened.load(storage.read(run, storage.SHOPPERS, layout.shoppers, before))
        ids = everyone.select(SHOPPER).union(known.counters.shoppers.select(SHOPPER))
        _require(opened, who, ids, layout.shopper, f"shopper {shopper!r}", at)
        generated = shop.surface.candidates == "generated"
        capped = shop.surface.max_candidates if generated else None
        proposed = assemble.propose(opened, known, layout, who, capped)
        pairs = proposed.pairs.select(*assemble.PAIR, "prior_rank")
        if item is None:
            pairs = pairs.filter(pairs.prior_rank <= most)
        else:
            what = _one(opened, ITEM, layout.item, item)
            _require(opened, what, known.counters.items, layout.item, f"item {item!r}", at)
            pairs = attach(who.cross_join(what), pairs, *assemble.PAIR)
        pairs = opened.keep(pairs)
        shown = assemble.visits(who, at)
        given = (opened, shown, (SHOPPER,), pairs.select(*assemble.PAIR), known, proposed, layout)
        made = _explained(opened, layout, pairs, assemble.wide(*given), assemble.build(*given))
    return Shown(shopper, at, step.start, made)


def _explained(
    opened: Engine, layout: Layout, pairs: Table, wide: Table, built: Table
) -> tuple[Explained, ...]:
    features = catalogue.catalogue(layout)
    read = list(dict.fromkeys(name for each in features for name in counters_of(each)))
    kinds = wide.schema().to_pyarrow()
    ranked, counted, valued = (
        opened.arrow(table, schema, ITEM).to_pylist()
        for table, schema in (
            (pairs, pa.schema({ITEM: layout.item, "prior_rank": pa.int64()})),
            (wide, pa.schema([kinds.field(name) for name in dict.fromkeys([ITEM, *read])])),
            (built, pa.schema({ITEM: layout.item, **catalogue.types(features)})),
        )
    )
    found = [
        Explained(
            rank[ITEM],
            rank["prior_rank"],
            {each.name: values[each.name] for each in features},
            {name: counters[name] for name in read},
        )
        for rank, counters, values in zip(ranked, counted, valued, strict=True)
    ]
    return tuple(sorted(found, key=lambda each: each.rank or 0))


def _step_of(shop: Shop, at: datetime) -> Interval:
    beyond = (at - shop.grid.anchor) % shop.grid.step
    return Interval(at - beyond, at - beyond + shop.grid.step)


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
    name = wanted.columns[0]
    schema = pa.schema({name: kind})
    if opened.arrow(wanted.semi_join(there, name), schema, name).num_rows == 0:
        some = opened.arrow(there.select(name).distinct().order_by(name).limit(3), schema, name)[
            name
        ]
        known = ", ".join(str(each) for each in some.to_pylist()) or "none at all"
        raise NotThere(f"{what} is not known at {at:%Y-%m-%d %H:%M} UTC; known are {known}, …")
