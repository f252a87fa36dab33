"""Features as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipelines.features.catalogue import Feature
from pipelines.inspect import feature_dictionary
from pipelines.inspect.explain import Explanation
from pipelines.inspect.feature_dictionary import counters_of
from pipelines.shared.declaration import Shop

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES: Final = ("_first", "_last", "_time")
"""How the names of counters end that are microseconds since 1970."""


def families(shop: Shop) -> Iterator[Table]:
    """A table for each family."""
    for family, members in feature_dictionary.families(shop).items():
        table = Table(title=family, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for name in ("feature", "grain", "unit", "meaning"):
            table.add_column(name, overflow="fold")
        for each in members:
            table.add_row(each.name, each.grain, each.unit, each.meaning)
        yield table


def description(feature: Feature) -> Table:
    """Everything about one feature."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in {
        "feature": feature.name,
        "meaning": feature.meaning,
        "family": feature.family,
        "grain": feature.grain,
        "unit": feature.unit,
        "type": f"{feature.type}" + (", a stored code" if feature.categorical else ""),
        "idea from": feature.idea,
        "reads": ", ".join(counters_of(feature)),
    }.items():
        table.add_row(name, value)
    return table


def heading(shown: Explanation) -> str:
    """Whose values, at which time, from what was known when."""
    return (
        f"shopper {shown.shopper} at {shown.at:%Y-%m-%d %H:%M} UTC, from what was committed before "
        f"{shown.known_until:%Y-%m-%d %H:%M}"
    )


def values(shown: Explanation, shop: Shop) -> Table:
    """A row a feature: its value for each item; for a single item also the counters behind it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("feature")
    for item in shown.items:
        rank = "no candidate" if item.rank is None else f"candidate {item.rank}"
        table.add_column(f"item {item.item}\n{rank}", justify="right")
    alone = shown.items[0] if len(shown.items) == 1 else None
    table.add_column("unit")
    if alone:
        table.add_column("from", overflow="fold")
    for members in feature_dictionary.families(shop).values():
        for each in members:
            cells = [plain(item.values[each.name]) for item in shown.items]
            read = [
                f"{name} {plain(alone.counters[name], name.endswith(_TIMES))}"
                for name in (counters_of(each) if alone else ())
                if alone and name in alone.counters
            ]
            table.add_row(each.name, *cells, each.unit, *([", ".join(read)] if alone else []))
        table.add_section()
    return table


def plain(value: Any, time: bool = False) -> str:
    """A value or counter as text, a time from microseconds since 1970; null as an en dash."""
    if value is None:
        return "–"
    if time:
        return f"{_EPOCH + timedelta(microseconds=value):%Y-%m-%d %H:%M}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
