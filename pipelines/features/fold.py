"""One step: fold its changes into the state, form its groups, write their features."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import reduce
from typing import Any

import ibis
import pyarrow as pa

from pipelines.features import assemble as rows
from pipelines.features import catalogue
from pipelines.features.engines.base import Engine, Table, attach, conform
from pipelines.features.groups import generated as groups
from pipelines.features.groups import group_index, logged
from pipelines.features.latent import latent_schedule
from pipelines.features.state import (
    codes,  # fmt: skip
    entities,
    events,
    storage,
)
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.models import vocabulary
from pipelines.shared.run import Run


@dataclass(frozen=True)
class Formed:
    """The groups of a step that mature in it."""

    rows: pa.Table
    """See `Layout.rows`."""
    groups: pa.Table
    """group_id, shopper_id, group_time, mature_at; sorted by group_id."""
    labels: pa.Table
    """group_id, label; a row an item that the basket or list held."""
    late: int
    open: int


def take(run: Run, engine: Engine, layout: Layout, step: Interval, before: Interval | None) -> None:
    """Take one step, from its valid changes to its manifest.

    Args:
        before: the last step folded before this one.
    """
    started = time.perf_counter()
    with engine.scope():
        fold(run, engine, layout, step, before)
    with engine.scope():
        known = rows.as_of(run, engine, layout, step.start, before)
        if known.factors is not None:
            latent_schedule.store(run, step, known.factors)
        earlier = groups.formed_before(run, engine, layout, step)
        form = _logged if layout.shop.surface.candidates == "logged" else _generated
        formed = form(run, engine, layout, step, before, known, earlier)
    _write(run, layout, step, formed, started)


def fold(run: Run, engine: Engine, layout: Layout, step: Interval, before: Interval | None) -> None:
    """Write the step's partitions of the state; a rerun writes the same."""
    shop, lake = layout.shop, run.lake
    changes = {
        table: engine.load(storage.read_changes(run, table, step, layout.changes(table)))
        for table in storage.tables_read(shop)
    }
    versions = reduce(
        ibis.union,
        [events.normalise(changes[event.table], layout, event) for event in shop.events],
    )
    ordered = ("event_key", columns.POSITION)
    lake.replace(storage.EVENTS, step, engine.arrow(versions, layout.events, *ordered))

    if shop.surface.impressions is not None:
        shown = logged.versions(changes[shop.surface.impressions.table], layout)
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
        stood = engine.load(rows.snapshot(run, table, schema, before))
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


def _generated(
    run: Run, engine: Engine, layout: Layout, step: Interval, before: Interval | None,
    known: rows.Known, earlier: Table,
) -> Formed:  # fmt: skip
    versions = storage.read(run, storage.EVENTS, layout.events, step)
    arrived = groups.arrived(engine.load(versions), earlier, layout, step)
    new = engine.keep(arrived.groups)
    labels = engine.keep(arrived.labels)
    shoppers = new.select(columns.SHOPPER).distinct()
    most = layout.shop.surface.max_candidates
    proposed = rows.propose(engine, known, layout, shoppers, most)
    pairs = proposed.pairs.select(*rows.PAIR)
    built = rows.build(
        engine, new.drop("mature_at"), (columns.SHOPPER,), pairs, known, proposed, layout
    )
    built = attach(built, labels, columns.GROUP, columns.ITEM)
    built = built.mutate(label=built.label.fill_null(0))
    schema = layout.rows(catalogue.types(catalogue.catalogue(layout)))
    return Formed(
        engine.arrow(built, schema, columns.GROUP, columns.ITEM),
        engine.arrow(new, _group_schema(layout), columns.GROUP),
        engine.arrow(labels, _label_schema(layout), columns.GROUP, columns.ITEM),
        _number(engine, arrived.late),
        0,
    )


def _logged(
    run: Run, engine: Engine, layout: Layout, step: Interval, before: Interval | None,
    known: rows.Known, earlier: Table,
) -> Formed:  # fmt: skip
    table = logged.declared(layout).table
    changes = storage.read_changes(run, table, step, layout.changes(table))
    arrived, late = logged.arrived(engine.load(changes), earlier, layout, step)
    shown = engine.keep(arrived)
    shoppers = shown.select(columns.SHOPPER).distinct()
    proposed = rows.propose(engine, known, layout, shoppers, None)
    pairs = engine.keep(shown.select(*rows.PAIR).distinct())
    built = rows.build(engine, shown, rows.PAIR, pairs, known, proposed, layout)
    built = built.mutate(label=ibis.literal(0, "int8"))
    types = catalogue.types(catalogue.catalogue(layout))
    schema = layout.open_rows(types)
    fresh = engine.arrow(built, schema, columns.GROUP, columns.ITEM)
    carried = rows.snapshot(run, storage.OPEN_GROUPS, schema, before)
    closed, still_open = logged.part(carried, fresh, step)
    run.lake.replace(storage.OPEN_GROUPS, step, still_open)
    done = logged.labelled(run, engine, layout, step, closed)
    mature = logged.mature_groups(engine, done, step)
    return Formed(
        conform(done, layout.rows(types)),
        engine.arrow(mature, _group_schema(layout), columns.GROUP),
        conform(done, _label_schema(layout)),
        _number(engine, late),
        len(still_open[columns.GROUP].unique()),
    )


def _group_schema(layout: Layout) -> pa.Schema:
    names = (columns.GROUP, columns.SHOPPER, columns.GROUP_TIME, columns.MATURE_AT)
    return pa.schema([layout.index.field(name) for name in names])


def _label_schema(layout: Layout) -> pa.Schema:
    kinds = {columns.GROUP: pa.string(), columns.ITEM: layout.item, columns.LABEL: pa.int8()}
    return pa.schema(kinds)


def _number(engine: Engine, ids: Table) -> int:
    found: int = engine.arrow(ids, pa.schema({columns.GROUP: pa.string()}), columns.GROUP).num_rows
    return found


def _write(run: Run, layout: Layout, step: Interval, formed: Formed, started: float) -> None:
    surface = layout.shop.surface.name
    share = layout.shop.learning.memory_share
    made = group_index.index(formed.groups, formed.labels, formed.rows, layout.index, share)
    run.lake.replace(f"groups/{surface}", step, formed.rows)
    run.lake.replace(f"group_index/{surface}", step, made)
    recalled = group_index.recall(formed.rows, made)
    features = catalogue.catalogue(layout)
    run.ledger.record(
        Manifest(
            stage="features",
            subject=surface,
            interval=step,
            counts=_counts(formed, made),
            content_hash=content_hash(formed.rows),
            details={
                "features": [feature.name for feature in features],
                "categorical": [feature.name for feature in features if feature.categorical],
                "candidate_recall": recalled.pop("all"),
                "recall_by_source": recalled,
            },
            seconds=round(time.perf_counter() - started, 3),
        )
    )


def _counts(formed: Formed, made: pa.Table) -> dict[str, int]:
    columns_ = {name: made[name].to_numpy() for name in (columns.MEMORY, columns.RELEVANT)}
    relevant: Any = columns_[columns.RELEVANT]
    return {
        "groups": made.num_rows,
        "rows": formed.rows.num_rows,
        "memory_holdout": int(columns_[columns.MEMORY].sum()),
        "without_relevant": int((relevant == 0).sum()),
        "skipped_late": formed.late,
        "open": formed.open,
    }
