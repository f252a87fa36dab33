"""The ways to capture changes, by the name that a shop declares them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipelines.extract import schema
from pipelines.extract.schema import SourceColumn
from pipelines.extract.source import ChangeSource, Position
from pipelines.shared.declaration import Shop
from pipelines.shared.settings import Settings


@dataclass(frozen=True)
class Mode:
    """What a way of capturing changes has to offer.

    The shop is always a `Shop.part`, the URL that of its source's database.
    """

    source: Callable[[str, Shop, Settings], ChangeSource]
    install: Callable[[str, Shop, datetime | None], list[str]]
    """Begin to capture; the time stamps the rows found. Returns the tables newly captured."""
    remove: Callable[[str, Shop], None]
    """Leave no trace."""
    check: Callable[[str, Shop], list[str]]
    """What is wrong with tables and capture, each with the way out."""
    release: Callable[[str, Shop, Mapping[str, Position]], None] | None = None
    """Given the positions on record, the source may let go of what lies before them all; None
    where it holds nothing back. A table without a position is missing among them."""
    pending: Callable[[str, Shop, Mapping[str, Position]], dict[str, int]] | None = None
    """How many committed changes of each table the positions on record do not cover; None where
    that cannot be told cheaply."""
    pending_bytes: Callable[[str, Shop, Mapping[str, Position]], dict[str, int]] | None = None
    """How many bytes of the server's log lie behind each table's position; None without a log."""
    prune: Callable[[str, Shop, Mapping[str, Position]], dict[str, int]] | None = None
    """Given the positions before which no interval is extracted again, let go of the changes that
    lie before them and that a later one of the same row has overtaken. Table → how many; None
    where changes are not kept in the shop's tables."""
    columns: Callable[[str, Shop], dict[str, dict[str, SourceColumn]]] = field(kw_only=True)
    """The columns that each table has."""
    unfit: Callable[[str, SourceColumn], str] = field(
        default=schema.unfit_in_postgres, kw_only=True
    )
    """Why values of a column may not fit a declared type; see `drift.compare`."""


def mode(url: str, shop: Shop) -> Mode:
    """The way in which a part's changes are captured; its driver is imported only here."""
    if shop.source.capture == "binlog":
        from pipelines.extract.binlog import install as binlog
        from pipelines.extract.binlog.source import BinlogSource
        from pipelines.extract.databases.mysql import catalogue, types

        return Mode(
            BinlogSource, binlog.install, binlog.remove, binlog.check,
            pending_bytes=binlog.pending_bytes,
            columns=catalogue.tables_of, unfit=types.unfit,
        )  # fmt: skip
    if shop.source.capture == "cursor":
        from pipelines.extract.cursor import check as cursor_check
        from pipelines.extract.cursor import source as cursor

        return Mode(
            cursor.CursorSource, cursor_check.install, cursor_check.remove, cursor_check.check,
            pending=cursor.pending, columns=cursor_check.tables_of,
        )  # fmt: skip
    if shop.source.capture == "wal":
        from pipelines.extract.wal import install as slots
        from pipelines.extract.wal import source as wal

        return Mode(
            wal.WalSource, slots.install, slots.remove, slots.check, slots.release,
            pending_bytes=wal.pending_bytes, columns=schema.tables_of,
        )  # fmt: skip
    from pipelines.extract import triggers

    return Mode(
        triggers.source, triggers.install, triggers.remove, triggers.check,
        pending=triggers.pending, prune=triggers.prune,
        columns=triggers.tables_of, unfit=triggers.unfit(url),
    )  # fmt: skip


def as_found(url: str, shop: Shop, known: Mapping[str, Mapping[str, str]] | None = None) -> Shop:
    """The part with the further columns that its tables have now and that are to be taken.

    Args:
        url: SQLAlchemy URL of a source's database; not asked where no table takes new columns.
        shop: the source's part of the shop.
        known: table → column → type of those taken before.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    taking = [name for name, table in shop.tables.items() if table.new_columns == "take"]
    if not taking:
        return shop
    way = mode(url, shop)
    found = way.columns(url, shop)
    return shop.with_columns(
        {
            name: schema.to_take(
                shop.tables[name], found[name], (known or {}).get(name, {}), way.unfit
            )
            for name in taking
        }
    )


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Begin to capture the changes of every declared table, with the rows they hold.

    Args:
        url: SQLAlchemy URL of a source's database.
        shop: the source's part of the shop.
        at: commit time of the rows found; default: the shop's clock.

    Returns:
        The tables newly or again captured.

    Raises:
        SchemaDrift: a table is not as declared; nothing was installed.
        CaptureMissing: capture cannot begin so, or a right is missing.
        SourceUnavailable: the database does not answer, or a table stayed busy.
    """
    return mode(url, shop).install(url, as_found(url, shop), at)


def remove(url: str, shop: Shop) -> None:
    """Take change capture out of a source's database again.

    Raises:
        SourceUnavailable: the database does not answer, or a table stayed busy.
    """
    mode(url, shop).remove(url, shop)


def check(url: str, shop: Shop) -> list[str]:
    """What is wrong with a source's tables and their capture, each with the way out.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    return mode(url, shop).check(url, as_found(url, shop))
