"""What the tables mean: shoppers, items, events, lists, and what is made of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from pipelines.shared.declaration.base import Declared, Name


class Shopper(Declared):
    """The table of shoppers."""

    table: Name
    id: Name


class Item(Declared):
    """The table of items, its categorical attributes and its price."""

    table: Name
    id: Name
    category: Name
    """The attribute by which items compete: popularity and prices are compared within it."""
    attributes: dict[Name, Name] = Field(default_factory=dict)
    """Further categorical attributes: feature name → column."""
    price: Name | None = None


class Event(Declared):
    """One kind of event a shopper can cause on an item."""

    kind: Name
    table: Name
    grade: Annotated[int, Field(ge=1, le=10)]
    """Strength of the label; the strongest event within the attribution window counts."""
    time: Name
    shopper: Name
    item: Name
    group: Name | None = None
    """The basket or session the event belongs to."""
    quantity: Name | None = None
    price: Name | None = None
    """Amount paid for the line."""
    where: dict[Name, str | int | bool] = Field(default_factory=dict)
    """Only rows with these values are events of this kind: for tables that hold several kinds."""


class Periods(Declared):
    """Numeric attributes of items that hold for a time: promotions, placements."""

    table: Name
    item: Name
    valid_from: Name
    valid_until: Name
    attributes: Annotated[dict[Name, Name | float], Field(min_length=1)]
    """Feature name → numeric column, or a number that stands for the period itself."""


class Impressions(Declared):
    """The table that logs what a shopper was shown."""

    table: Name
    group: Name
    time: Name
    shopper: Name
    item: Name
    position: Name | None = None


class Surface(Declared):
    """A place where items are ranked for a shopper."""

    name: Name
    candidates: Literal["logged", "generated"]
    impressions: Impressions | None = None
    """Required where candidates are logged."""
    groups_of: Name | None = None
    """Required where candidates are generated: the event kind whose group makes a ranking group."""
    attribution_days: Annotated[float, Field(ge=0, le=90)] = 0.0
    max_candidates: Annotated[int, Field(ge=20, le=5000)] = 300
    top_k: Annotated[int, Field(ge=1, le=1000)] = 20
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
