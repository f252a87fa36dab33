"""One step: fold its changes into the state, form its groups, write their features."""

from __future__ import annotations

import time
from functools import reduce

import ibis
import pyarrow as pa

from pipelines.features import assemble, catalogue
from pipelines.features.engines.base import Engine, Table
from pipelines.features.groups import generated, group_index, logged
from pipelines.features.groups.arrivals import Formed
from pipelines.features.latent import latent_schedule
from pipelines.features.moment import AsOf
from pipelines.features.state import codes, entities, events, showings, storage
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.models import vocabulary
from pipelines.shared.run import Run


def take(run: Run, engine: Engine, layout: Layout, step: Interval, as_of: AsOf) -> None:
    """Take one step, from its valid changes to its manifest.

    Args:
        as_of: the step's start, with the last step folded before it.
    """
    started = time.perf_counter()
    with engine.scope():
        fold(run, engine, layout, step, as_of)
    with engine.scope():
        known = assemble.know(run, engine, layout, as_of)
        if known.factors is not None:
            latent_schedule.store(run, step, known.factors)
        kind = logged if layout.shop.surface.candidates == "logged" else generated
        formed = kind.form(run, engine, layout, step, known)
    _write(run, layout, step, formed, started)


def fold(run: Run, engine: Engine, layout: Layout, step: Interval, as_of: AsOf) -> None:
    """Write the step's partitions of the state; a rerun writes the same."""
    shop, lake = layout.shop, run.lake
    changes = {
        table: engine.load(storage.read_changes(run, layout, table, step))
        for table in storage.tables_read(shop)
    }
    versions = reduce(
        ibis.union,
        [events.normalise(changes[event.table], layout, event) for event in shop.events],
    )
    ordered = ("event_key", columns.POSITION)
    lake.replace(storage.EVENTS, step, engine.arrow(versions, layout.events, *ordered))

    if shop.surface.impressions is not None:
        shown = showings.versions(changes[shop.surface.impressions.table], layout)
        lake.replace(
            storage.SHOWN, step, engine.arrow(shown, layout.shown, "shown_key", columns.POSITION)
        )

    items = entities.item_versions(changes[shop.item.table], layout)
    lake.replace(vocabulary.TABLE, step, codes.append(engine, lake, step, items, layout))
    periods = [
        entities.period_versions(changes[each.table], layout, place, each)
        for place, each in enumerate(shop.periods)
    ]
    shoppers = entities.shopper_versions(changes[shop.shopper.table], layout)
    for table, schema, key, delta in (
        (storage.ITEMS, layout.items, columns.ITEM, items),
        (storage.SHOPPERS, layout.shoppers, columns.SHOPPER, shoppers),
        (storage.PERIODS, layout.periods, "period_key", _all(periods)),
    ):
        stood = engine.load(storage.read(run, table, schema, as_of.folded))
        if delta is None:
            now = stood
        elif table == storage.ITEMS:
            now = entities.fold_items(stood, delta)
        else:
            now = entities.fold(stood, delta, key)
        if table == storage.PERIODS:
            now = entities.still_relevant(now, step)
        lake.replace(table, step, engine.arrow(now, schema, key))


def _all(tables: list[Table]) -> Table | None:
    return reduce(ibis.union, tables) if tables else None


def _write(run: Run, layout: Layout, step: Interval, formed: Formed, started: float) -> None:
    surface = layout.shop.surface.name
    share = layout.shop.learning.memory_share
    index = group_index.index(formed.groups, formed.labels, formed.rows, layout.index, share)
    run.lake.replace(f"groups/{surface}", step, formed.rows)
    run.lake.replace(f"group_index/{surface}", step, index)
    recall = group_index.recall(formed.rows, index)
    features = catalogue.catalogue(layout)
    run.ledger.record(
        Manifest(
            stage="features",
            subject=surface,
            interval=step,
            counts=_counts(formed, index),
            content_hash=content_hash(formed.rows),
            details={
                "features": [feature.name for feature in features],
                "categorical": [feature.name for feature in features if feature.categorical],
                "candidate_recall": recall.pop("all"),
                "recall_by_source": recall,
            },
            seconds=round(time.perf_counter() - started, 3),
        )
    )


def _counts(formed: Formed, index: pa.Table) -> dict[str, int]:
    return {
        "groups": index.num_rows,
        "rows": formed.rows.num_rows,
        "memory_holdout": int(index[columns.MEMORY].to_numpy().sum()),
        "without_relevant": int((index[columns.RELEVANT].to_numpy() == 0).sum()),
        "skipped_late": formed.late,
        "open": formed.open,
    }
