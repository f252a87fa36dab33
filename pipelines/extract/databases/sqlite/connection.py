"""Connections to a shop's SQLite file; its errors in Freshrank's words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import sqlalchemy as sa

from pipelines.shared.errors import CaptureMissing, SettingsError, SourceUnavailable

WAIT_S = 30.0
"""How long a writer may hold the file before a connection gives up."""
OLDEST = (3, 25)
"""SQLite 3.25 brought window functions."""


@contextmanager
def connect(url: str, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """An autocommit connection to the shop's file, read-only unless `write` is set.

    Raises:
        SettingsError: the URL names no file.
        SourceUnavailable: the file cannot be read, or stayed locked.
        CaptureMissing: SQLite is too old, or the file may not be written.
    """
    path = sa.make_url(url).database
    if path in (None, "", ":memory:"):
        raise SettingsError(
            f"{url} names no file; write the connection as sqlite:////path/to/shop.db"
        )
    if sqlite3.sqlite_version_info < OLDEST:
        raise CaptureMissing(
            f"SQLite is {sqlite3.sqlite_version}; `capture: trigger` needs 3.25 or newer"
        )
    mode = "rw" if write else "ro"
    try:
        # Delta Lake reads the rows in a thread of its own, one at a time.
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "readonly" in str(error):
            raise CaptureMissing(
                f"{path} may not be written ({error}); install capture as the file's owner"
            ) from error
        raise SourceUnavailable(
            f"the shop's database {path} does not answer ({error}); mend the connection, or wait "
            "until its writer is done, then run again"
        ) from error
