"""Where the lake holds rows of shoppers, and which of them are somebody's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared.columns import GROUP, SHOPPER
from pipelines.shared.forgotten import Forgotten
from pipelines.shared.lake import Lake
from pipelines.shared.run import Installation

SPLIT: Final = ("changes", "valid", "quarantine")
"""What a source table's changes lie in."""


@dataclass(frozen=True)
class Family:
    """Tables of the lake with rows of the same shoppers, which share a key.

    A row that names no shopper belongs to the one whom all other rows of its key name: a cursor's
    delete has the key alone, and old scores name only the group.
    """

    tables: tuple[str, ...]
    columns: Mapping[str, bool]
    """Those with a shopper's id, and whether they are pseudonyms."""
    key: tuple[str, ...]
    source: str | None = None
    """The source table that they come from; None for what is computed from all of them."""


def families(installation: Installation, forgotten: Forgotten) -> list[Family]:
    """Every family of a shop; what others are computed from comes first."""
    shop = installation.shop
    surface, own = shop.surface.name, {SHOPPER: forgotten.pseudonymised}
    of_sources = [
        Family(
            tuple(f"{part}/{table}" for part in SPLIT),
            forgotten.columns(table),
            tuple(shop.tables[table].key),
            table,
        )
        for table in shop.shopper_columns
    ]
    groups = (f"group_index/{surface}", f"groups/{surface}", "state/open_groups",
              f"scores/{surface}")  # fmt: skip
    return [
        *of_sources,
        Family(("state/events",), own, ("event_key",)),
        Family(("state/shown",), own, ("shown_key",)),
        Family(groups, own, (GROUP,)),
        *(
            Family((table,), own, (SHOPPER,))
            for table in ("state/shoppers", "state/factors_shoppers", f"serving/{surface}")
        ),
    ]


def partitions(lake: Lake, family: Family, table: str) -> Iterator[tuple[str, pa.Table]]:
    """Each partition of a table: its key, and the rows' shoppers and keys."""
    return lake.partitions(table, dict.fromkeys((*family.columns, *family.key)))


def joined(rows: Any, key: tuple[str, ...]) -> Any:
    """The key of each row as one text; null where a part of it is missing."""
    parts: list[Any] = [rows.column(name).cast(pa.string()) for name in key]
    return pc.binary_join_element_wise(*parts, "\0")


def count(mask: Any) -> int:
    """How many rows a mask has."""
    return int(pc.sum(mask).as_py() or 0)


def nameless(rows: Any, family: Family) -> Any:
    """Which rows name no shopper: a mask without nulls."""
    mask: Any = pa.repeat(pa.scalar(True), rows.num_rows)
    for name in family.columns:
        if name in rows.schema.names:
            mask = pc.and_(mask, pc.is_null(rows.column(name)))
    return mask


def own_keys(lake: Lake, family: Family, forgotten: Forgotten) -> Any:
    """Texts (see `joined`) of the keys whose rows name forgotten shoppers and nobody else."""
    theirs, others = [pa.array([], pa.string())], [pa.array([], pa.string())]
    for table in family.tables:
        for _, rows in partitions(lake, family, table):
            found = rows.filter(forgotten.theirs(rows, family.columns))
            if found.num_rows:
                theirs.append(pc.unique(joined(found, family.key)))
    keys = pc.unique(pa.concat_arrays(theirs)).drop_null()
    if len(keys) == 0:
        return keys
    for table in family.tables:
        for _, rows in partitions(lake, family, table):
            known = rows.filter(pc.is_in(joined(rows, family.key), value_set=keys))
            foreign = pc.invert(
                pc.or_(forgotten.theirs(known, family.columns), nameless(known, family))
            )
            others.append(pc.unique(joined(known.filter(foreign), family.key)))
    return keys.filter(pc.invert(pc.is_in(keys, value_set=pa.concat_arrays(others))))
