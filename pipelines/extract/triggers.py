"""The door to trigger capture: each kind of database has a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipelines.extract import schema
from pipelines.extract.schema import SourceColumn
from pipelines.extract.source import ChangeSource, Position
from pipelines.extract.trigger.numbered import source as trigger_log
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import SettingsError
from pipelines.shared.settings import Settings


def source(url: str, shop: Shop, settings: Settings) -> ChangeSource:
    """Changes that triggers wrote down."""
    if database := _log_database(url):
        return trigger_log.LogSource(url, shop, settings, database[0].opened)
    from pipelines.extract.trigger.postgres.source import TriggerSource

    return TriggerSource(url, shop, settings)


def install(url: str, shop: Shop, at: datetime | None = None) -> list[str]:
    """See `modes.install`."""
    from pipelines.extract.trigger.postgres import install as trigger_install

    database = _log_database(url)
    return list((database[1] if database else trigger_install).install(url, shop, at))


def remove(url: str, shop: Shop) -> None:
    """See `modes.remove`."""
    from pipelines.extract.trigger.postgres import install as trigger_install

    database = _log_database(url)
    (database[1] if database else trigger_install).remove(url, shop)


def check(url: str, shop: Shop) -> list[str]:
    """See `modes.check`."""
    if database := _log_database(url):
        return trigger_log.check(url, shop, database[0].opened)
    from pipelines.extract.trigger.postgres import install as trigger_install

    return trigger_install.check(url, shop)


def pending(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """How many committed changes of each table no extraction has taken yet."""
    if database := _log_database(url):
        return trigger_log.pending(url, shop, positions, database[0].opened)
    from pipelines.extract.trigger.postgres import source as trigger

    return trigger.pending(url, shop, positions)


def prune(url: str, shop: Shop, positions: Mapping[str, Position]) -> dict[str, int]:
    """See `Mode.prune`."""
    if database := _log_database(url):
        return trigger_log.prune(url, shop, positions, database[0].writing)
    from pipelines.extract.trigger.postgres import source as trigger

    return trigger.prune(url, shop, positions)


def tables_of(url: str, shop: Shop) -> dict[str, dict[str, SourceColumn]]:
    """The columns of every table of a source."""
    kind = _kind(url)
    if kind == "postgresql":
        return schema.tables_of(url, shop)
    if kind == "sqlite":
        from pipelines.extract.cursor import check as cursor_check

        return cursor_check.tables_of(url, shop)
    from pipelines.extract.databases.mysql import catalogue as binlog_columns

    return binlog_columns.tables_of(url, shop)


def unfit(url: str) -> Callable[[str, SourceColumn], str]:
    """Why values of a column may not fit a declared type, in a database of the URL's kind."""
    if _kind(url) not in ("mysql", "mariadb"):
        return schema.unfit_in_postgres
    from pipelines.extract.databases.mysql import types

    return types.unfit


def _log_database(url: str) -> Any:
    """Session and install of a database whose changes are numbered; None for PostgreSQL.

    Raises:
        SettingsError: the URL is none, or of another kind of database.
    """
    kind = _kind(url)
    if kind in ("mysql", "mariadb"):
        from pipelines.extract.trigger.numbered.mariadb import install, session

        return session, install
    if kind == "sqlite":
        from pipelines.extract.trigger.numbered.sqlite import install as sqlite_install
        from pipelines.extract.trigger.numbered.sqlite import session as sqlite_session

        return sqlite_session, sqlite_install
    if kind == "postgresql":
        return None
    raise SettingsError(
        f"`capture: trigger` knows no database {kind!r}; give the connection a URL that begins "
        "with postgresql+psycopg://, mysql+pymysql:// or sqlite:///"
    )


def _kind(url: str) -> str:
    try:
        return sa.make_url(url).get_backend_name()
    except sa.exc.ArgumentError:
        return ""
