"""Showings: the items of logged lists, as a step's versions and as what stands."""

from __future__ import annotations

import ibis
from ibis.expr.datatypes import DataType

from pipelines.features.engines.base import Table
from pipelines.features.state import events
from pipelines.features.state.storage import Layout
from pipelines.shared.declaration import Impressions


def declared(layout: Layout) -> Impressions:
    """The surface's impressions.

    Raises:
        ValueError: the surface logs none.
    """
    shown = layout.shop.surface.impressions
    if shown is None:
        raise ValueError(f"surface {layout.shop.surface.name} logs no impressions")
    return shown


def versions(changes: Table, layout: Layout) -> Table:
    """A step's changes of the impressions table in the columns of `state/shown`."""
    shown = declared(layout)
    position = changes[shown.position].cast("int32") if shown.position else ibis.null("int32")
    return changes.select(
        shown_key=events.joined_key(changes, "", layout.shop.tables[shown.table].key),
        group_id=changes[shown.group].cast("string"),
        shopper_id=changes[shown.shopper].cast(DataType.from_pyarrow(layout.shopper)),
        item_id=changes[shown.item].cast(DataType.from_pyarrow(layout.item)),
        group_time=changes[shown.time],
        shown_position=position,
        **events.change(changes),
    )


def standing(shown: Table, *within: str) -> Table:
    """The last version of each showing that says who saw what in which list, and when.

    Args:
        within: see `events.standing`.
    """
    stood = events.standing(shown, "shown_key", *within)
    return stood.filter(
        stood.group_id.notnull()
        & stood.shopper_id.notnull()
        & stood.item_id.notnull()
        & stood.group_time.notnull()
    )
