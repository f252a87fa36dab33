"""What the tables mean: shoppers, items, events, periods, surfaces, and the features made of
them."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from pipelines.shared.declaration.base import Declared, Name


class Shopper(Declared):
    """The table of shoppers."""

    table: Name
    """Name of the table, one of `tables`."""
    id: Name
    """Column with the shopper's id."""
    also_in: dict[Name, Name] = Field(default_factory=dict)
    """Table → column with a shopper's id, for tables whose shoppers nothing else here names.
    Forgetting a shopper erases their rows there too."""


class Item(Declared):
    """The table of items, its categorical attributes and its price."""

    table: Name
    """Name of the table, one of `tables`."""
    id: Name
    """Column with the item's id."""
    category: Name
    """Column with the item's category, within which popularity and prices are compared."""
    attributes: dict[Name, Name] = Field(default_factory=dict)
    """Feature name → column, for further categorical attributes."""
    price: Name | None = None
    """Column with the item's current price."""
    available: Name | None = None
    """Column that says whether the item can be had: a flag, or a number such as the stock, which
    has to be above 0. An item whose value is null cannot. Only what can be had is served."""


class Event(Declared):
    """One kind of event that a shopper causes on an item, such as a view or a purchase."""

    kind: Name
    """Name of the kind, such as `view` or `purchase`; kinds must differ."""
    table: Name
    """Name of the table whose rows are the events, one of `tables`."""
    grade: Annotated[int, Field(ge=1, le=10)]
    """Grade of the label that the event gives; the highest grade within the attribution window
    counts."""
    time: Name
    """Column with the time of the event."""
    shopper: Name
    """Column with the shopper's id."""
    item: Name
    """Column with the item's id."""
    group: Name | None = None
    """Column with the id of the basket or session that the event belongs to."""
    quantity: Name | None = None
    """Column with the number of pieces."""
    price: Name | None = None
    """Column with the amount paid for all pieces together."""
    where: dict[Name, str | int | bool] = Field(default_factory=dict)
    """Column → value that a row must have to be an event of this kind, for a table that holds
    several kinds."""


class Periods(Declared):
    """Numeric attributes that items have for a time, such as promotions and placements."""

    table: Name
    """Name of the table whose rows are the periods, one of `tables`."""
    item: Name
    """Column with the item's id."""
    valid_from: Name
    """Time or date column with the start of the period."""
    valid_until: Name
    """Time or date column with the end of the period, which is no longer part of it."""
    attributes: Annotated[dict[Name, Name | float], Field(min_length=1)]
    """Feature name → numeric column, or a number that is the value while the period lasts."""


class Impressions(Declared):
    """The table that logs what a shopper was shown."""

    table: Name
    """Name of the table whose rows are the shown items, one of `tables`."""
    group: Name
    """Column with the id of the list; the items of a list are one ranking group."""
    time: Name
    """Column with the time at which the list was shown."""
    shopper: Name
    """Column with the id of the shopper who was shown the list."""
    item: Name
    """Column with the shown item's id."""
    position: Name | None = None
    """Column with the item's position in the list, which may count from any number."""


class Surface(Declared):
    """A place where items are ranked for a shopper."""

    name: Name
    """Name of the surface, such as `search`."""
    candidates: Literal["logged", "generated"]
    """Where candidates come from: `logged`, the shop logs what it showed; `generated`, Freshrank
    proposes items."""
    impressions: Impressions | None = None
    """Table of what was shown; required exactly where candidates are `logged`."""
    groups_of: Name | None = None
    """Event kind whose `group` is a ranking group; required exactly where candidates are
    `generated`."""
    attribution_days: Annotated[float, Field(ge=0, le=90)] = 0.0
    """Attribution window in days: how long after the group's time an event still counts for a
    label. Of logged candidates only: a generated group is the basket itself."""
    max_candidates: Annotated[int, Field(ge=20, le=5000)] = 300
    """Largest number of candidates of a generated group."""
    top_k: Annotated[int, Field(ge=1, le=1000)] = 20
    """Number of items in a published list."""
    publish_to: Name | None = None
    """Table that receives the published lists. Default `freshrank_<name>`."""
    publish_in: Name | None = None
    """Source in whose database that table is. Default: the one that has the table of shoppers."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.candidates == "logged") != (self.impressions is not None):
            raise ValueError("`impressions` is required exactly when candidates are `logged`")
        if (self.candidates == "generated") != (self.groups_of is not None):
            raise ValueError("`groups_of` is required exactly when candidates are `generated`")
        if self.candidates == "generated" and self.attribution_days:
            raise ValueError(
                f"`attribution_days: {self.attribution_days:g}` has no meaning for `generated` "
                "candidates, whose groups are labelled by their own basket; leave it out"
            )
        return self


Family = Literal[
    "pair", "affinity", "item", "price", "period", "shopper", "copurchase", "exposure", "latent",
    "candidate", "context", "code",
]  # fmt: skip
CandidateSource = Literal[
    "repurchase", "popularity", "category", "copurchase", "latent", "promoted", "novel"
]


class Features(Declared):
    """What is computed from the shop's data."""

    families: Annotated[tuple[Family, ...], Field(min_length=1)] = get_args(Family)
    """Families of features, see docs/features.md. A family whose data the shop lacks is empty."""
    sources: Annotated[tuple[CandidateSource, ...], Field(min_length=1)] = get_args(CandidateSource)
    """Where candidates come from, on a surface that generates them; see docs/ranking.md."""
