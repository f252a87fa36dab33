"""Exposure: how often an item was shown, to all and to the shopper, where lists are logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ibis

from pipelines.features.counters import Counters, recent
from pipelines.features.engines.base import Engine, Table, attach
from pipelines.features.moment import micros
from pipelines.features.state import showings, storage
from pipelines.features.state.storage import Layout
from pipelines.shared.columns import ITEM, SHOPPER
from pipelines.shared.run import Run

DAYS: Final = 28


@dataclass(frozen=True)
class Exposure:
    """Counters of lists of the last 28 days."""

    items: Table
    """item: `ex_shown`, `ex_taken` (lines of the same days), `ex_position_sum`."""
    pairs: Table
    """shopper × item: `ex_pair_shown`, `ex_pair_ignored` (since the shopper last took it)."""


def count(run: Run, engine: Engine, layout: Layout, counters: Counters) -> Exposure | None:
    """Count what was shown before the counters' time; None where the shop logs no lists."""
    if layout.shop.surface.impressions is None:
        return None
    as_of = counters.as_of
    since = as_of.ago(DAYS)
    stored = storage.read_between(run, storage.SHOWN, layout.shown, since, as_of.time)
    rows = showings.standing(engine.load(stored))
    rows = rows.filter((rows.group_time >= micros(since)) & (rows.group_time < as_of.micros))
    lists = engine.materialize(rows)
    taken = counters.lines.filter(recent(counters.lines, as_of, DAYS))
    items = lists.group_by(ITEM).agg(
        ex_shown=lists.count(),
        ex_position_sum=lists.shown_position.sum().cast("int64"),
    )
    items = attach(items, taken.group_by(ITEM).agg(ex_taken=taken.count()), ITEM)
    last = counters.pairs.select(SHOPPER, ITEM, "si_last")
    met = attach(lists, last, SHOPPER, ITEM)
    ignored = met.si_last.isnull() | (met.group_time > met.si_last)
    pairs = met.group_by([SHOPPER, ITEM]).agg(
        ex_pair_shown=met.count(),
        ex_pair_ignored=ibis.ifelse(ignored, 1, 0).sum().cast("int64"),
    )
    return Exposure(engine.materialize(items), engine.materialize(pairs))
