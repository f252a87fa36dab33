"""What the tables mean: shoppers, items, events, lists, and what is made of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from pipelines.shared.declaration.base import Declared, Name


class Shopper(Declared):
    """The table of shoppers."""

    table: Name
    """The table of shoppers."""
    id: Name
    """Its column with the shopper's id."""


class Item(Declared):
    """The table of items, its categorical attributes and its price."""

    table: Name
    """The table of items."""
    id: Name
    """Its column with the item's id."""
    category: Name
    """The attribute by which items compete: popularity and prices are compared within it."""
    attributes: dict[Name, Name] = Field(default_factory=dict)
    """Further categorical attributes: feature name → column."""
    price: Name | None = None
    """The item's present price."""


class Event(Declared):
    """One kind of event a shopper can cause on an item."""

    kind: Name
    """The event's name, such as `view` or `purchase`; each is declared once."""
    table: Name
    """The table whose rows are events."""
    grade: Annotated[int, Field(ge=1, le=10)]
    """Strength of the label; the strongest event within the attribution window counts."""
    time: Name
    """When the event happened."""
    shopper: Name
    """Whose event it is."""
    item: Name
    """The item it concerns."""
    group: Name | None = None
    """The basket or session the event belongs to."""
    quantity: Name | None = None
    """Pieces of the item."""
    price: Name | None = None
    """Amount paid for the line."""
    where: dict[Name, str | int | bool] = Field(default_factory=dict)
    """Only rows with these values are events of this kind: for tables that hold several kinds."""


class Periods(Declared):
    """Numeric attributes of items that hold for a time: promotions, placements."""

    table: Name
    """The table whose rows are periods."""
    item: Name
    """The item that a period concerns."""
    valid_from: Name
    """A time or date column: the period's beginning."""
    valid_until: Name
    """A time or date column: the period's end, no longer part of it."""
    attributes: Annotated[dict[Name, Name | float], Field(min_length=1)]
    """Feature name → numeric column, or a number that stands for the period itself."""


class Impressions(Declared):
    """The table that logs what a shopper was shown."""

    table: Name
    """The table whose rows are shown items."""
    group: Name
    """The list that an item was shown in: its rows are one ranking group."""
    time: Name
    """When the list was shown."""
    shopper: Name
    """To whom it was shown."""
    item: Name
    """The item shown."""
    position: Name | None = None
    """The item's position in the list, counted from any first number."""


class Surface(Declared):
    """A place where items are ranked for a shopper."""

    name: Name
    """The surface's name, such as `search`."""
    candidates: Literal["logged", "generated"]
    """`logged`: the shop logs what it showed; `generated`: Freshrank proposes items."""
    impressions: Impressions | None = None
    """Required where candidates are logged."""
    groups_of: Name | None = None
    """Required where candidates are generated: the event kind whose group makes a ranking group."""
    attribution_days: Annotated[float, Field(ge=0, le=90)] = 0.0
    """How many days after the group's time an event still counts for its label."""
    max_candidates: Annotated[int, Field(ge=20, le=5000)] = 300
    """Candidates of a group at most, where they are generated."""
    top_k: Annotated[int, Field(ge=1, le=1000)] = 20
    """Length of a published list."""
    publish_to: Name | None = None
    """Table that receives the lists; default `freshrank_<name>`."""
    publish_in: Name | None = None
    """Source in whose database that table is; default: the one that has the shoppers."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.candidates == "logged") != (self.impressions is not None):
            raise ValueError("`impressions` is required exactly when candidates are `logged`")
        if (self.candidates == "generated") != (self.groups_of is not None):
            raise ValueError("`groups_of` is required exactly when candidates are `generated`")
        return self


Family = Literal[
    "pair", "affinity", "item", "price", "period", "shopper", "copurchase", "exposure", "latent",
    "candidate", "context", "code",
]  # fmt: skip
CandidateSource = Literal[
    "repurchase", "popularity", "category", "copurchase", "latent", "promoted", "novel"
]


class Features(Declared):
    """What is made of the shop's data; a family without its data (prices, lists) is empty."""

    families: Annotated[tuple[Family, ...], Field(min_length=1)] = get_args(Family)
    """Families of features, see docs/features.md."""
    sources: Annotated[tuple[CandidateSource, ...], Field(min_length=1)] = get_args(CandidateSource)
    """Where candidates come from, on a surface that generates them."""
