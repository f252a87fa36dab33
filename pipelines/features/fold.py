"""One step: fold its changes into the state, form its groups, write their features."""

from __future__ import annotations

import time
from functools import reduce
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.features import catalogue
from pipelines.features.engines.base import Engine, Table
from pipelines.features.groups import generated, group_index, logged
from pipelines.features.groups.arrivals import Formed
from pipelines.features.known import read_known
from pipelines.features.latent import latent_schedule
from pipelines.features.moment import AsOf, micros
from pipelines.features.pending import Inputs
from pipelines.features.state import codes, entities, events, showings, storage
from pipelines.features.state.step_writer import StepWriter, chain
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.models import vocabulary
from pipelines.shared.run import Run


def take(
    run: Run,
    engine: Engine,
    layout: Layout,
    step: Interval,
    as_of: AsOf,
    inputs: Inputs | None = None,
    after: str | None = None,
) -> Manifest:
    """Take one step, from its valid changes to its manifest.

    Args:
        as_of: the step's start, with the last step folded before it.
        inputs: the changes that it is folded from, for the record.
        after: the chain of the step before it (`step_writer.chain`), for the record.
    """
    started = time.perf_counter()
    state = StepWriter(run.lake, step)
    with engine.scope():
        fold(run, engine, layout, as_of, state)
    with engine.scope():
        known = read_known(run, engine, layout, as_of)
        if known.factors is not None:
            latent_schedule.store(state, known.factors)
        kind = logged if layout.shop.surface.candidates == "logged" else generated
        formed = kind.form(run, engine, layout, step, known)
        if formed.still_open is not None:
            state.write(storage.OPEN_GROUPS, formed.still_open, columns.GROUP, columns.ITEM)
    return _write(run, layout, state, formed, {"inputs": inputs or {}, "after": after}, started)


def fold(run: Run, engine: Engine, layout: Layout, as_of: AsOf, state: StepWriter) -> None:
    """Write the step's partitions of the state; a rerun writes the same."""
    shop, lake, step = layout.shop, run.lake, state.step
    changes = {
        table: engine.load(storage.read_changes(run, layout, table, step))
        for table in storage.tables_read(shop)
    }

    def stood(table: str, schema: pa.Schema) -> Table:
        return engine.load(storage.read(run, table, schema, as_of.folded))

    def write(table: str, schema: pa.Schema, rows: Table, *order: str) -> None:
        state.write(table, engine.arrow(rows, schema, *order), *order)

    versions = reduce(
        ibis.union,
        [events.normalise(changes[event.table], layout, event) for event in shop.events],
    )
    write(storage.EVENTS, layout.events, versions, "event_key", columns.POSITION)
    if shop.surface.impressions is not None:
        shown = showings.versions(changes[shop.surface.impressions.table], layout)
        write(storage.SHOWN, layout.shown, shown, "shown_key", columns.POSITION)

    items = entities.item_versions(changes[shop.item.table], layout)
    codes_now = codes.append(engine, lake, step, items, layout)
    state.write(vocabulary.TABLE, codes_now, "feature", "code")
    items = entities.fold_items(stood(storage.ITEMS, layout.items), items)
    write(storage.ITEMS, layout.items, items, columns.ITEM)
    shoppers = entities.shopper_versions(changes[shop.shopper.table], layout)
    shoppers = entities.fold(stood(storage.SHOPPERS, layout.shoppers), shoppers, columns.SHOPPER)
    write(storage.SHOPPERS, layout.shoppers, shoppers, columns.SHOPPER)
    periods = stood(storage.PERIODS, layout.periods)
    for place, each in enumerate(shop.periods):
        delta = entities.period_versions(changes[each.table], layout, place, each)
        periods = entities.fold(periods, delta, "period_key")
    can_hold_later = periods.valid_until > micros(step.end)
    write(storage.PERIODS, layout.periods, periods.filter(can_hold_later), "period_key")


def _write(
    run: Run,
    layout: Layout,
    state: StepWriter,
    formed: Formed,
    details: dict[str, Any],
    started: float,
) -> Manifest:
    surface = layout.shop.surface.name
    share = layout.shop.learning.memory_share
    index = group_index.index(formed.groups, formed.labels, formed.rows, layout.index, share)
    run.lake.replace(f"groups/{surface}", state.step, formed.rows)
    state.write(f"group_index/{surface}", index, columns.GROUP)
    recall = group_index.recall(formed.rows, index)
    features = catalogue.catalogue(layout)
    manifest = Manifest(
        stage="features",
        subject=surface,
        interval=state.step,
        counts=_counts(formed, index),
        content_hash=content_hash(formed.rows),
        details={
            "features": [feature.name for feature in features],
            "categorical": [feature.name for feature in features if feature.categorical],
            "candidate_recall": recall.pop("all"),
            "recall_by_source": recall,
            "state": state.record,
            "chain": chain(details["after"], state.record),
            **details,
        },
        seconds=round(time.perf_counter() - started, 3),
    )
    run.ledger.record(manifest)
    return manifest


def _counts(formed: Formed, index: pa.Table) -> dict[str, int]:
    still_open = formed.still_open
    open_groups = 0 if still_open is None else len(pc.unique(still_open[columns.GROUP]))
    return {
        "groups": index.num_rows,
        "rows": formed.rows.num_rows,
        "memory_holdout": int(index[columns.MEMORY].to_numpy().sum()),
        "without_relevant": int((index[columns.RELEVANT].to_numpy() == 0).sum()),
        "skipped_late": formed.late,
        "open": open_groups,
    }
