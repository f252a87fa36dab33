"""The whole shop, with the checks that its parts fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, model_validator

from pipelines.shared.declaration.base import Declared, Name, require
from pipelines.shared.declaration.column_types import COUNTABLE, OPAQUE, PLAIN
from pipelines.shared.declaration.loop import Every, Gate, Learning, Retention
from pipelines.shared.declaration.ranking import Event, Features, Item, Periods, Shopper, Surface
from pipelines.shared.declaration.tables import Source, Table
from pipelines.shared.errors import DeclarationError
from pipelines.shared.intervals import Grid, utc


class Shop(Declared):
    """A whole shop, as declared."""

    shop: Name
    """Name of the shop; its folder in `shops/` has the same."""
    title: str
    """Name of the shop as people read it."""
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    """Source name → one of the shop's databases."""
    tables: Annotated[dict[Name, Table], Field(min_length=1)]
    """Table name in the database → what is captured of it."""
    shopper: Shopper
    """Where the shoppers are."""
    item: Item
    """Where the items are."""
    events: Annotated[list[Event], Field(min_length=1)]
    """The kinds of events that shoppers cause on items."""
    periods: list[Periods] = Field(default_factory=list)
    """Attributes that items have for a time, such as promotions."""
    surfaces: Annotated[list[Surface], Field(min_length=1, max_length=1)]
    """Where items are ranked for a shopper; exactly one."""
    interval: Every
    """The grid of intervals that runs work on."""
    features: Features = Features()
    """Which features and candidates are computed."""
    learning: Learning = Learning()
    """How challengers are trained."""
    gate: Gate = Gate()
    """What a challenger must prove to be promoted."""
    retention: Retention = Retention()
    """How many days data is kept."""
    _footprint: str = PrivateAttr("")

    @property
    def source(self) -> Source:
        """The only source of a shop that has one, or of a `part`."""
        (source,) = self.sources.values()
        return source

    @property
    def source_name(self) -> str:
        """The name of `source`."""
        (name,) = self.sources
        return name

    @property
    def footprint(self) -> str:
        """The prefix of every name that capture adds to the database of a `part`.

        The first source's prefix lacks its name, so that adding a source changes nothing for it.
        """
        return self._footprint or f"freshrank_{self.shop}"

    def source_of(self, table: str) -> str:
        """The name of the source of a declared table."""
        return self.tables[table].source or next(iter(self.sources))

    def require_table(self, table: str) -> None:
        """Refuse a table that is not declared.

        Raises:
            DeclarationError: it is not.
        """
        if table not in self.tables:
            raise DeclarationError(
                f"table {table!r} is not declared in shops/{self.shop}/shop.yaml; "
                f"declared: {', '.join(self.tables)}"
            )

    def part(self, source: str) -> Shop:
        """The shop reduced to one source and its tables; nothing else is checked."""
        tables = {
            name: each for name, each in self.tables.items() if self.source_of(name) == source
        }
        update = {"sources": {source: self.sources[source]}, "tables": tables}
        part = self.model_copy(update=update)
        if source != next(iter(self.sources)):
            part._footprint = f"freshrank_{self.shop}_{source}"
        return part

    def with_columns(self, further: Mapping[str, Mapping[str, str]]) -> Shop:
        """The shop with further columns: table → column → type."""
        widened = {name: self.tables[name].with_columns(each) for name, each in further.items()}
        return self.model_copy(update={"tables": {**self.tables, **widened}})

    def parts(self) -> list[Shop]:
        """The part of each source, in the order declared."""
        return [self.part(source) for source in self.sources]

    @property
    def published_in(self) -> Source:
        """The source whose database receives the published lists."""
        return self.sources[self.surface.publish_in or self.source_of(self.shopper.table)]

    @property
    def shopper_columns(self) -> dict[str, tuple[str, ...]]:
        """Table → its columns with a shopper's id, for every table that has any."""
        shown = self.surface.impressions
        named = [
            (self.shopper.table, self.shopper.id),
            *((event.table, event.shopper) for event in self.events),
            *([(shown.table, shown.shopper)] if shown is not None else []),
            *self.shopper.also_in.items(),
        ]
        columns: dict[str, tuple[str, ...]] = {}
        for table, column in dict.fromkeys(named):
            columns[table] = (*columns.get(table, ()), column)
        return columns

    @property
    def surface(self) -> Surface:
        """The ranking surface."""
        return self.surfaces[0]

    @property
    def grid(self) -> Grid:
        """The interval grid."""
        return Grid(utc(self.interval.anchor), timedelta(days=self.interval.days))

    @model_validator(mode="after")
    def _sources_named(self) -> Self:
        for name, table in self.tables.items():
            if table.source is not None:
                require(table.source, self.sources, f"tables.{name}.source: ", "a source")
            elif len(self.sources) > 1:
                raise ValueError(
                    f"tables.{name}.source: is required where a shop has several sources; "
                    f"accepted: {', '.join(self.sources)}"
                )
        for name in self.sources:
            if name not in map(self.source_of, self.tables):
                raise ValueError(f"sources.{name}: no table names it; take it out")
        if (publish_in := self.surface.publish_in) is not None:
            require(publish_in, self.sources, "surfaces[0].publish_in: ", "a source")
        return self

    @model_validator(mode="after")
    def _cursors_where_used(self) -> Self:
        for part in self.parts():
            used = part.source.capture == "cursor"
            wrong = [name for name, each in part.tables.items() if (each.cursor is None) == used]
            if wrong:
                what = "is required of every table with" if used else "goes only with"
                raise ValueError(
                    f"tables: `cursor` {what} `capture: cursor`; see {', '.join(wrong)}"
                )
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for path, table, columns in self._mentions():
            require(table, self.tables, f"{path}.table: ", "a declared table")
            known = self.tables[table].stored_columns()
            for field, column in columns.items():
                require(column, known, f"{path}.{field}: ", f"a stored column of {table!r}")
                written = self.tables[table].columns[column]
                if written in OPAQUE:
                    usable = ", ".join(each for each in PLAIN if each not in OPAQUE)
                    raise ValueError(
                        f"{path}.{field}: column {column!r} is {written}, of which a ranker can "
                        f"read nothing; accepted: {usable}, decimal(p,s)"
                    )
        for name, declared in self.tables.items():
            capture = self.sources[self.source_of(name)].capture
            if capture == "wal" and declared.commit_time is not None:
                raise ValueError(
                    f"tables.{name}.commit_time: `capture: wal` takes commit times from the "
                    "server's log; leave it out"
                )
        kinds = [event.kind for event in self.events]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"events: kinds must differ, got {', '.join(kinds)}")
        if (kind := self.surface.groups_of) is not None:
            require(kind, kinds, "surfaces[0].groups_of: ", "a declared event kind")
            if next(event for event in self.events if event.kind == kind).group is None:
                raise ValueError(f"surfaces[0].groups_of: event {kind!r} declares no `group`")
        return self

    @model_validator(mode="after")
    def _availability_is_a_flag_or_a_number(self) -> Self:
        if self.item.available is not None:
            written = self.tables[self.item.table].columns[self.item.available]
            if written not in COUNTABLE and not written.startswith("decimal"):
                raise ValueError(
                    f"item.available: column {self.item.available!r} is {written}; accepted: "
                    f"{', '.join(COUNTABLE)}, decimal(p,s): a flag, or a number above 0"
                )
        return self

    def _mentions(self) -> list[tuple[str, str, dict[str, str]]]:
        """Every mention of a table's columns: path, table, field → column."""
        item = self.item
        mentions: list[tuple[str, str, dict[str, str]]] = [
            ("shopper", self.shopper.table, {"id": self.shopper.id}),
            *(
                ("shopper.also_in", table, {table: column})
                for table, column in self.shopper.also_in.items()
            ),
            ("item", item.table, _columns(item, "id", "category", "price", "available")),
            ("item.attributes", item.table, dict(item.attributes)),
        ]
        for place, event in enumerate(self.events):
            fields = ("time", "shopper", "item", "group", "quantity", "price")
            mentions.append((f"events[{place}]", event.table, _columns(event, *fields)))
            where = {column: column for column in event.where}
            mentions.append((f"events[{place}].where", event.table, where))
        for place, periods in enumerate(self.periods):
            columns = _columns(periods, "item", "valid_from", "valid_until")
            mentions.append((f"periods[{place}]", periods.table, columns))
            read = {k: v for k, v in periods.attributes.items() if isinstance(v, str)}
            mentions.append((f"periods[{place}].attributes", periods.table, read))
        if (shown := self.surface.impressions) is not None:
            columns = _columns(shown, "group", "time", "shopper", "item", "position")
            mentions.append(("surfaces[0].impressions", shown.table, columns))
        return mentions


def _columns(declared: Declared, *fields: str) -> dict[str, str]:
    values = {field: getattr(declared, field) for field in fields}
    return {field: value for field, value in values.items() if value is not None}
