"""The features of a shop, for people: by name, by family and as the committed dictionary."""

from __future__ import annotations

import difflib
from typing import Any

import ibis

from pipelines.features import catalogue
from pipelines.features.catalogue import Feature
from pipelines.features.state.storage import Layout
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import PermanentError


class UnknownFeature(PermanentError):
    """The shop has no feature of this name."""


def feature(shop: Shop, name: str) -> Feature:
    """A feature of a shop by its name.

    Raises:
        UnknownFeature: there is none; names the nearest ones.
    """
    features = {each.name: each for each in catalogue.catalogue(Layout(shop))}
    if name not in features:
        near = difflib.get_close_matches(name, features, n=3) or sorted(features)[:3]
        raise UnknownFeature(
            f"shop {shop.shop} has no feature {name!r}; the nearest are {', '.join(near)}. "
            "`python -m pipelines features list` shows all"
        )
    return features[name]


def families(shop: Shop) -> dict[str, list[Feature]]:
    """The features of a shop by family, in the catalogue's order."""
    by_family: dict[str, list[Feature]] = {}
    for each in catalogue.catalogue(Layout(shop)):
        by_family.setdefault(each.family, []).append(each)
    return by_family


def counters_of(feature: Feature) -> tuple[str, ...]:
    """The columns of the joined row that a feature's expression reads, in the order of reading."""
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
    by_family = families(shop)
    number = sum(len(members) for members in by_family.values())
    lines = [
        f"# Features of {shop.title}",
        "",
        "Made by `python -m pipelines features list --markdown`; change"
        " `pipelines/features/catalogue.py`, not this page.",
        "",
        f"{number} features of {len(by_family)} families. *Reads* are the counters behind a "
        "feature: `si_` shopper × item, `it_` item, `sh_` shopper, `sc_` shopper × category, `sa_`"
        " shopper × attribute, `all_` the shop, `co_` bought together. A feature that cannot be"
        " known is null.",
    ]
    for family, members in by_family.items():
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
