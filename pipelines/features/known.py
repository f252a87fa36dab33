"""What was known at a moment: everything that features and candidates may read (law 3)."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.features import counters, exposure
from pipelines.features.counters import Counters
from pipelines.features.engines.base import Engine, Table
from pipelines.features.exposure import Exposure
from pipelines.features.latent import latent_schedule
from pipelines.features.latent.als import Factors
from pipelines.features.moment import AsOf
from pipelines.features.state import codes, entities, events, storage
from pipelines.features.state.storage import Layout
from pipelines.shared.columns import ITEM
from pipelines.shared.models import vocabulary
from pipelines.shared.run import Run


@dataclass(frozen=True)
class Known:
    """What was known at a time: features of that time use nothing else."""

    counters: Counters
    offered: Table
    """The items that may be proposed: those in the catalogue."""
    segments: Table
    """See `entities.segments`."""
    exposure: Exposure | None
    """None where no impressions are logged."""
    factors: Factors | None
    """None where neither a feature nor a source asks for latent factors."""


def read_known(
    run: Run, engine: Engine, layout: Layout, as_of: AsOf, *, available: bool = False
) -> Known:
    """Read what was committed and folded before a time.

    Args:
        available: of the catalogue, offer only what can be had (`item.available`).
    """
    since = as_of.ago(counters.WINDOW_DAYS)
    stood = events.standing_between(run, engine, layout, since, as_of.time)
    items = engine.load(storage.read(run, storage.ITEMS, layout.items, as_of.folded))
    described = codes.encode(items, engine, vocabulary.rows(run.lake, as_of.time), layout)
    periods = engine.load(storage.read(run, storage.PERIODS, layout.periods, as_of.folded))
    counted = counters.count(engine, events.lines(stood, layout.shop), described, layout, as_of)
    if available and layout.shop.item.available:
        items = items.filter(items.available)
    return Known(
        counted,
        engine.materialize(items.select(ITEM)),
        engine.materialize(entities.segments(periods, layout)),
        exposure.count(run, engine, layout, counted),
        latent_schedule.known_factors(run, engine, layout, counted),
    )
