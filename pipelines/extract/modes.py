"""The registry of capture modes, by capture and kind of database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from pipelines.extract import schema
from pipelines.extract.schema import SourceColumn
from pipelines.extract.source import ChangeSource, Position, StampedAhead
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import SettingsError
from pipelines.shared.settings import Settings


@dataclass(frozen=True)
class Mode:
    """What a capture mode has to offer in one kind of database.

    The shop is always a `Shop.part`, the URL that of its source's database.
    """

    source: Callable[[str, Shop, Settings], ChangeSource]
    """Opens nothing yet; the settings have the key of the pseudonyms."""
    install: Callable[[str, Shop, datetime | None], list[str]]
    """Begin to capture; the time stamps the rows present. Returns the tables newly captured."""
    remove: Callable[[str, Shop], None]
    """Leave no trace."""
    check: Callable[[str, Shop], list[str]]
    """What is wrong with tables and capture, each with the way out."""
    release: Callable[[str, Shop, Mapping[str, Position]], None] | None = None
    """Given the positions on record, the source may give up what lies before them all; None
    where it holds nothing back. A table without a position is missing among them."""
    pending: Callable[[str, Shop, Mapping[str, Position]], dict[str, int]] | None = None
    """How many committed changes of each table the positions on record do not cover; None where
    they cannot be counted cheaply."""
    ahead: Callable[[str, Shop], list[StampedAhead]] | None = None
    """A few changes of each table that are stamped in the far future, where a column or a clock of
    the shop's gives commit times; None where the server stamps them."""
    pending_bytes: Callable[[str, Shop, Mapping[str, Position]], dict[str, int]] | None = None
    """How many bytes of the server's log lie behind each table's position; None without a log."""
    prune: Callable[[str, Shop, Mapping[str, Position]], dict[str, int]] | None = None
    """Given the positions before which no interval is extracted again, delete the changes that
    lie before them and that a later one of the same row has overtaken. Table → how many; None
    where changes are not kept in the shop's tables."""
    columns: Callable[[str, Shop], dict[str, dict[str, SourceColumn]]] = field(kw_only=True)
    """The columns that each table has."""
    unfit: Callable[[str, SourceColumn], str] = field(kw_only=True)
    """Why values of a column may not fit a declared type; see `schema.compare`."""


def _trigger_in_postgres() -> Mode:
    from pipelines.extract.databases.postgres import catalogue, types
    from pipelines.extract.trigger.postgres import install, source

    return Mode(
        source.TriggerSource, install.install, install.remove, install.check,
        pending=source.pending, prune=source.prune, ahead=source.ahead,
        columns=catalogue.tables_of, unfit=types.unfit,
    )  # fmt: skip


def _trigger_in_mysql() -> Mode:
    from pipelines.extract.databases.mysql import catalogue, types
    from pipelines.extract.trigger.numbered.mariadb import install, session

    return _numbered(session, install, catalogue.tables_of, types.unfit)


def _trigger_in_sqlite() -> Mode:
    from pipelines.extract.databases.any.catalogue import tables_of
    from pipelines.extract.databases.postgres.types import unfit
    from pipelines.extract.trigger.numbered.sqlite import install, session

    return _numbered(session, install, tables_of, unfit)


def _numbered(session: Any, install: Any, columns: Any, unfit: Any) -> Mode:
    from pipelines.extract.trigger.numbered import source

    return Mode(
        partial(source.LogSource, opened=session.opened), install.install, install.remove,
        partial(source.check, opened=session.opened),
        pending=partial(source.pending, opened=session.opened),
        prune=partial(source.prune, opened=session.writing),
        ahead=partial(source.ahead, opened=session.opened),
        columns=columns, unfit=unfit,
    )  # fmt: skip


def _wal() -> Mode:
    from pipelines.extract.databases.postgres import catalogue, types
    from pipelines.extract.wal import install, slot, source

    return Mode(
        source.WalSource, install.install, install.remove, install.check, slot.release,
        pending_bytes=source.pending_bytes,
        columns=catalogue.tables_of, unfit=types.unfit,
    )  # fmt: skip


def _binlog() -> Mode:
    from pipelines.extract.binlog import install, source
    from pipelines.extract.databases.mysql import catalogue, types

    return Mode(
        source.BinlogSource, install.install, install.remove, install.check,
        pending_bytes=install.pending_bytes, columns=catalogue.tables_of, unfit=types.unfit,
    )  # fmt: skip


def _cursor() -> Mode:
    from pipelines.extract.cursor import check, source
    from pipelines.extract.databases.any import catalogue
    from pipelines.extract.databases.postgres.types import unfit

    return Mode(
        source.CursorSource, check.install, check.remove, check.check, pending=source.pending,
        ahead=source.ahead, columns=catalogue.tables_of, unfit=unfit,
    )  # fmt: skip


_MODES: dict[tuple[str, str], Callable[[], Mode]] = {
    ("trigger", "postgresql"): _trigger_in_postgres,
    ("trigger", "mysql"): _trigger_in_mysql,
    ("trigger", "mariadb"): _trigger_in_mysql,
    ("trigger", "sqlite"): _trigger_in_sqlite,
    ("wal", "postgresql"): _wal,
    ("binlog", "mysql"): _binlog,
    ("binlog", "mariadb"): _binlog,
}
"""By capture and dialect. Each imports its database's driver only when it is called.

`cursor` is not among them: it reads whatever SQLAlchemy has a dialect for.
"""
_URLS = {
    "postgresql": "postgresql+psycopg://",
    "mysql": "mysql+pymysql://",
    "sqlite": "sqlite:///",
}


def mode(url: str, shop: Shop) -> Mode:
    """The capture mode of a source.

    Raises:
        SettingsError: its capture does not know databases of the URL's kind.
    """
    capture = shop.source.capture
    if capture == "cursor":
        return _cursor()
    try:
        dialect = sa.make_url(url).get_backend_name()
    except sa.exc.ArgumentError:
        dialect = ""
    if (capture, dialect) not in _MODES:
        urls = [begin for kind, begin in _URLS.items() if (capture, kind) in _MODES]
        raise SettingsError(
            f"`capture: {capture}` knows no database {dialect!r}; give the connection a URL that "
            f"begins with {' or '.join(urls)}"
        )
    return _MODES[capture, dialect]()


def with_new_columns(
    url: str, shop: Shop, known: Mapping[str, Mapping[str, str]] | None = None
) -> Shop:
    """The part with every undeclared column that `new_columns: take` captures by now.

    `known` has table → column → type of those captured before. The database is not asked where no
    table takes new columns.

    Raises:
        SourceUnavailable: the database does not answer.
    """
    taking = [name for name, table in shop.tables.items() if table.new_columns == "take"]
    if not taking:
        return shop
    capture = mode(url, shop)
    columns = capture.columns(url, shop)
    return shop.with_columns(
        {
            name: schema.columns_to_add(
                shop.tables[name], columns[name], (known or {}).get(name, {}), capture.unfit
            )
            for name in taking
        }
    )


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """Begin to capture the changes of every declared table, with the rows they hold.

    The rows count as of `at`, by default now. Returns the tables newly or again captured.

    Raises:
        SchemaDrift: a table is not as declared; nothing was installed.
        CaptureMissing: capture cannot begin so, or a right is missing.
        SourceUnavailable: the database does not answer, or a table stayed busy.
    """
    return mode(url, shop).install(url, with_new_columns(url, shop), at)


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
    return mode(url, shop).check(url, with_new_columns(url, shop))
