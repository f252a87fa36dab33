"""Replaces personal values by a keyed hash before anything is written."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipelines.shared.declaration import Table
from pipelines.shared.errors import SettingsError
from pipelines.shared.hashing import pseudonym
from pipelines.shared.settings import Settings


def key_for(settings: Settings, name: str, table: Table) -> bytes:
    """The key for a table's pseudonyms; empty where it needs none.

    Raises:
        SettingsError: the table has columns to pseudonymise and no key is set.
    """
    columns = [column for column, how in table.personal.items() if how == "pseudonymise"]
    if not columns:
        return b""
    secret = settings.pseudonym_key.get_secret_value() if settings.pseudonym_key else ""
    if not secret:
        raise SettingsError(
            f"{name}.{columns[0]} is declared `pseudonymise`, but FRESHRANK_PSEUDONYM_KEY is not "
            "set; set it to a long random text and keep it: another key makes other pseudonyms"
        )
    return secret.encode()


def pseudonymise(values: Any, key: bytes) -> Any:
    """The pseudonym of each text (`hashing.pseudonym`); null stays null.

    The same value has the same pseudonym in every table, so that tables still join.
    """
    coded = values.dictionary_encode()
    hashed = [pseudonym(key, value) for value in coded.dictionary.to_pylist()]
    return pa.array(hashed, pa.string()).take(coded.indices)
