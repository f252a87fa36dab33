"""A shop's declaration: `shops/<name>/shop.yaml`, parsed strictly and frozen.

Everything that Freshrank knows about a shop's tables and columns stands here.
"""

from __future__ import annotations

import difflib
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.shared.errors import DeclarationError
from pipelines.shared.intervals import Grid, utc

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_PLAIN_TYPES: dict[str, pa.DataType] = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
_DECIMAL = re.compile(r"^decimal\((\d{1,2}), ?(\d{1,2})\)$")


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a declared column type.

    Raises:
        ValueError: the type is not known.
    """
    if name in _PLAIN_TYPES:
        return _PLAIN_TYPES[name]
    if match := _DECIMAL.match(name):
        return pa.decimal128(int(match[1]), int(match[2]))
    raise ValueError(
        f"{name!r} is not a column type; accepted: {', '.join(_PLAIN_TYPES)}, decimal(p,s)"
    )


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Source(_Declared):
    """Where the shop's tables are and how their changes are captured."""

    connection: Name
    """Name of the connection; its URL comes from Airflow or the environment."""
    capture: Literal["trigger"] = "trigger"
    schema_name: Name = Field(default="public", alias="schema")


class Table(_Declared):
    """One captured table."""

    key: Annotated[list[Name], Field(min_length=1)]
    columns: Annotated[dict[Name, str], Field(min_length=1)]
    """Column → type (int32, int64, float64, decimal(p,s), string, bool, date, timestamp)."""
    commit_time: Name | None = None
    """A column that carries the commit time; without it the database's clock stamps a change."""
    personal: dict[Name, Literal["drop", "pseudonymise"]] = {}
    ignore: list[Name] = []
    """Columns of the source that are known and not taken."""

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        for name, kind in self.columns.items():
            try:
                arrow_type(kind)
            except ValueError as error:
                raise ValueError(f"columns.{name}: {error}") from None
        for field, names in (("key", self.key), ("personal", self.personal)):
            for name in names:
                _require(name, self.columns, f"{field}: ", "a column of this table")
        for name in self.key:
            if self.personal.get(name) == "drop":
                raise ValueError(f"personal.{name}: a key cannot be dropped; use pseudonymise")
        if self.commit_time is not None:
            _require(self.commit_time, self.columns, "commit_time: ", "a column of this table")
            if self.columns[self.commit_time] != "timestamp":
                raise ValueError(f"commit_time: column {self.commit_time!r} must be a timestamp")
        return self

    def stored_columns(self) -> dict[str, pa.DataType]:
        """The columns that reach the lake: declared ones less the dropped, in order.

        A pseudonymised column is stored as text.
        """
        return {
            name: pa.string() if self.personal.get(name) == "pseudonymise" else arrow_type(kind)
            for name, kind in self.columns.items()
            if self.personal.get(name) != "drop"
        }


class Shopper(_Declared):
    """The table of shoppers."""

    table: Name
    id: Name


class Item(_Declared):
    """The table of items, its categorical attributes and its price."""

    table: Name
    id: Name
    category: Name
    """The attribute by which items compete: popularity and prices are compared within it."""
    attributes: dict[Name, Name] = {}
    """Further categorical attributes: feature name → column."""
    price: Name | None = None


class Event(_Declared):
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
    where: dict[Name, str | int | bool] = {}
    """Only rows with these values are events of this kind: for tables that hold several kinds."""


class Periods(_Declared):
    """Numeric attributes of items that hold for a time: promotions, placements."""

    table: Name
    item: Name
    valid_from: Name
    valid_until: Name
    attributes: Annotated[dict[Name, Name], Field(min_length=1)]
    """Feature name → numeric column."""


class Impressions(_Declared):
    """The table that logs what a shopper was shown."""

    table: Name
    group: Name
    time: Name
    shopper: Name
    item: Name
    position: Name | None = None


class Surface(_Declared):
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
    """Table of the shop's database that receives the lists; default `freshrank_<name>`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.candidates == "logged") != (self.impressions is not None):
            raise ValueError("`impressions` is required exactly when candidates are `logged`")
        if (self.candidates == "generated") != (self.groups_of is not None):
            raise ValueError("`groups_of` is required exactly when candidates are `generated`")
        return self


class Every(_Declared):
    """The interval grid of the shop."""

    anchor: date
    """A day on which an interval starts, at midnight UTC."""
    days: Annotated[int, Field(ge=1, le=31)] = 7


class Learning(_Declared):
    """How challengers learn."""

    warm_up_intervals: Annotated[int, Field(ge=1)] = 8
    """Intervals with groups before the first model is trained."""
    holdout_days: Annotated[float, Field(gt=0)] = 3.0
    """The cut lies this long before the interval's end; what follows is the forward holdout."""
    memory_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of groups that no model ever learns from."""
    memory_intervals: Annotated[int, Field(ge=1)] = 12
    """The memory holdout reaches back this many intervals."""
    negatives_per_group: Annotated[int, Field(ge=1)] = 60
    """Unlabelled candidates kept for training, per group, drawn with a fixed seed."""
    seed: int = 17


class Gate(_Declared):
    """When a challenger is taken."""

    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    """Level of the two-sided paired bootstrap interval."""
    memory_margin: Annotated[float, Field(ge=0)] = 0.01
    """How much NDCG@10 on the memory holdout may lie below the champion's, at worst."""
    min_groups: Annotated[int, Field(ge=1)] = 50
    """Fewer groups in the forward holdout prove nothing."""
    max_trees: Annotated[int, Field(ge=1)] = 500
    max_megabytes: Annotated[float, Field(gt=0)] = 20.0


class Shop(_Declared):
    """A whole shop, as declared."""

    shop: Name
    title: str
    source: Source
    tables: Annotated[dict[Name, Table], Field(min_length=1)]
    shopper: Shopper
    item: Item
    events: Annotated[list[Event], Field(min_length=1)]
    periods: list[Periods] = []
    surfaces: Annotated[list[Surface], Field(min_length=1, max_length=1)]
    interval: Every
    learning: Learning = Learning()
    gate: Gate = Gate()

    @property
    def surface(self) -> Surface:
        """The ranking surface."""
        return self.surfaces[0]

    @property
    def grid(self) -> Grid:
        """The interval grid."""
        return Grid(utc(self.interval.anchor), timedelta(days=self.interval.days))

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for path, table, columns in self._mentions():
            _require(table, self.tables, f"{path}.table: ", "a declared table")
            known = self.tables[table].stored_columns()
            for field, column in columns.items():
                _require(column, known, f"{path}.{field}: ", f"a stored column of {table!r}")
        kinds = [event.kind for event in self.events]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"events: kinds must differ, got {', '.join(kinds)}")
        if (kind := self.surface.groups_of) is not None:
            _require(kind, kinds, "surfaces[0].groups_of: ", "a declared event kind")
            if next(event for event in self.events if event.kind == kind).group is None:
                raise ValueError(f"surfaces[0].groups_of: event {kind!r} declares no `group`")
        return self

    def _mentions(self) -> list[tuple[str, str, dict[str, str]]]:
        """Every place that names columns of a table: path, table, field → column."""
        item = self.item
        found: list[tuple[str, str, dict[str, str]]] = [
            ("shopper", self.shopper.table, {"id": self.shopper.id}),
            ("item", item.table, _columns(item, "id", "category", "price")),
            ("item.attributes", item.table, dict(item.attributes)),
        ]
        for place, event in enumerate(self.events):
            fields = ("time", "shopper", "item", "group", "quantity", "price")
            found.append((f"events[{place}]", event.table, _columns(event, *fields)))
            where = {column: column for column in event.where}
            found.append((f"events[{place}].where", event.table, where))
        for place, periods in enumerate(self.periods):
            columns = _columns(periods, "item", "valid_from", "valid_until")
            found.append((f"periods[{place}]", periods.table, columns))
            found.append((f"periods[{place}].attributes", periods.table, dict(periods.attributes)))
        if (shown := self.surface.impressions) is not None:
            columns = _columns(shown, "group", "time", "shopper", "item", "position")
            found.append(("surfaces[0].impressions", shown.table, columns))
        return found


def _columns(declared: _Declared, *fields: str) -> dict[str, str]:
    values = {field: getattr(declared, field) for field in fields}
    return {field: value for field, value in values.items() if value is not None}


def _require(name: str, known: Any, path: str, what: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{path}{name!r} is not {what}{hint} Accepted: {', '.join(known)}")


def load_shop(name: str, shops: Path) -> Shop:
    """Read and check `<shops>/<name>/shop.yaml`.

    Raises:
        DeclarationError: the shop is unknown, or its file is wrong; the message lists every
            fault with the file, the path inside it, the value and what would be accepted.
    """
    path = shops / name / "shop.yaml"
    if not path.is_file():
        known = sorted(found.parent.name for found in shops.glob("*/shop.yaml"))
        raise DeclarationError(
            f"unknown shop {name!r}: {path} does not exist; known: {', '.join(known) or 'none'}"
        )
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DeclarationError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(text, dict):
        raise DeclarationError(f"{path}: expected a mapping with keys shop, source, tables, …")
    try:
        shop = Shop.model_validate(text)
    except ValidationError as error:
        raise DeclarationError(_explain(path, error)) from None
    if shop.shop != name:
        raise DeclarationError(f"{path}: shop: {shop.shop!r} must equal its folder's name {name!r}")
    return shop


def _explain(path: Path, error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False):
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]
        ).lstrip(".")
        if fault["type"] == "extra_forbidden":
            accepted = ", ".join(_accepted(fault["loc"]))
            message = f"unknown key; accepted here: {accepted}"
        elif fault["type"] == "missing":
            message = "is required"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            if not isinstance(fault["input"], (dict, list, BaseModel)):
                message += f" (got {fault['input']!r})"
        faults.append(f"{path}: {place}: {message}" if place else f"{path}: {message}")
    return "\n".join(faults)


def _accepted(location: tuple[int | str, ...]) -> list[str]:
    """The keys accepted beside the one at `location`."""
    model: type[BaseModel] = Shop
    for part in location[:-1]:
        field = next(
            (f for name, f in model.model_fields.items() if (f.alias or name) == part), None
        )
        if field is not None:
            model = _model_inside(field.annotation) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, _Declared):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (model := _model_inside(inner)) is not None:
            return model
    return None
