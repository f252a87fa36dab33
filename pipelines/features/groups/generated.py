"""Groups of a surface whose candidates are generated: one a basket that arrived in the step."""

from __future__ import annotations

import ibis

from pipelines.features import assemble, candidates, catalogue
from pipelines.features.engines.base import Engine, Table, attach
from pipelines.features.groups import arrivals
from pipelines.features.groups.arrivals import Formed
from pipelines.features.known import Known
from pipelines.features.moment import micros
from pipelines.features.state import storage
from pipelines.features.state.events import plausible, standing
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.intervals import Interval
from pipelines.shared.run import Run


def form(run: Run, engine: Engine, layout: Layout, step: Interval, known: Known) -> Formed:
    """Form the step's groups from the baskets that arrived in it.

    Args:
        known: what was known when the step began.
    """
    versions = storage.read(run, storage.EVENTS, layout.events, step)
    before = arrivals.earlier_versions(
        run, engine, storage.EVENTS, layout.events, step, "group_key",
        versions["group_key"].combine_chunks(),
    )  # fmt: skip
    earlier = _anchors(before, layout, columns.INTERVAL).select(group_id="group_key").distinct()
    arrived, labelled, late = _arrived(engine.load(versions), earlier, layout, step)
    new = engine.materialize(arrived)
    labels = engine.materialize(labelled)
    shoppers = new.select(columns.SHOPPER).distinct()
    proposed = candidates.propose(
        engine, known, layout, shoppers, layout.shop.surface.max_candidates, known.offered
    )
    pairs = proposed.pairs.select(*assemble.PAIR)
    built = assemble.build(engine, new.drop("mature_at"), pairs, known, proposed, layout)
    built = attach(built, labels, columns.GROUP, columns.ITEM)
    built = built.mutate(label=built.label.fill_null(0))
    schema = layout.rows(catalogue.types(layout))
    return Formed(
        engine.arrow(built, schema, columns.GROUP, columns.ITEM),
        engine.arrow(new, arrivals.group_schema(layout), columns.GROUP),
        engine.arrow(labels, arrivals.LABELS, columns.GROUP),
        engine.count(late),
    )


def _arrived(
    versions: Table, earlier: Table, layout: Layout, step: Interval
) -> tuple[Table, Table, Table]:
    """The baskets that a step's changes bring, net: one that was cancelled within it is none.

    Args:
        versions: the step's event versions (`state/events`).
        earlier: ids of groups formed earlier.

    Returns:
        A row a group: group_id, shopper_id, group_time, context_time, mature_at; a row an item
        that its events touched: group_id, item_id, label; and the ids of late groups.
    """
    events = _of_baskets(versions)
    anchors = _anchors(versions, layout)
    baskets = anchors.group_by(group_id=anchors.group_key).agg(
        shopper_id=anchors[columns.SHOPPER].min(), group_time=anchors.event_time.min()
    )
    new, late = arrivals.split_late(baskets, earlier, step, layout.shop.interval.days)
    of_new = events.rename(group_id="group_key").semi_join(new, columns.GROUP)
    labels = of_new.group_by([columns.GROUP, columns.ITEM]).agg(
        label=of_new.grade.max().cast("int8")
    )
    committed = of_new.group_by(columns.GROUP).agg(committed=of_new[columns.COMMITTED_AT].max())
    dated = attach(new, committed, columns.GROUP)
    groups = dated.mutate(
        context_time=arrivals.context_time(dated.group_time, step),
        mature_at=ibis.greatest(dated.committed, dated.group_time, micros(step.start)),
    )
    return groups.drop("committed"), labels, late


def _of_baskets(versions: Table, *within: str) -> Table:
    """Standing events that belong to a shopper's basket, or what stood `within` each step."""
    events = plausible(standing(versions, "event_key", *within))
    return events.filter(events.group_key.notnull() & events[columns.SHOPPER].notnull())


def _anchors(versions: Table, layout: Layout, *within: str) -> Table:
    """The events that make a basket one of the surface's."""
    events = _of_baskets(versions, *within)
    return events.filter(events.kind == layout.shop.surface.groups_of)
