"""Shoppers who were forgotten, recognised by a keyed hash of their id.

The ledger has the hash and not the id. Its key is derived from `FRESHRANK_PSEUDONYM_KEY`, so that
neither the ledger alone nor a pseudonym in the lake tells who a person was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared.declaration import Shop
from pipelines.shared.errors import SettingsError
from pipelines.shared.hashing import pseudonym
from pipelines.shared.run import Installation
from pipelines.shared.settings import Settings

_PURPOSE: Final = "freshrank: forgotten shoppers"


@dataclass(frozen=True)
class PersonHash:
    """The keyed hash by which a shopper is recognised, whether their id is stored as it is or as a
    pseudonym.

    Args:
        key: of the installation's pseudonyms.
    """

    key: bytes
    _known: dict[tuple[str, bool], str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, settings: Settings) -> PersonHash:
        """The hash of an installation.

        Raises:
            SettingsError: it has no key.
        """
        secret = settings.pseudonym_key.get_secret_value() if settings.pseudonym_key else ""
        if not secret:
            raise SettingsError(
                "forgotten shoppers are recognised by a keyed hash, but FRESHRANK_PSEUDONYM_KEY is "
                "not set; set it to a long random text and keep it (the same one, if shoppers were "
                "forgotten or values pseudonymised before)"
            )
        return cls(secret.encode())

    def of_raw(self, raw: str) -> str:
        """The hash of a shopper's id as the shop has it."""
        return self._of_pseudonym(pseudonym(self.key, raw))

    def of_stored(self, stored: str, *, pseudonymised: bool) -> str:
        """The hash of a shopper's id as the lake has it."""
        known = self._known.get((stored, pseudonymised))
        if known is None:
            known = self._of_pseudonym(stored) if pseudonymised else self.of_raw(stored)
            self._known[stored, pseudonymised] = known
        return known

    @property
    def check(self) -> str:
        """Tells the key from others, and nothing else about it."""
        return pseudonym(self._derived, "check")[:16]

    @property
    def _derived(self) -> bytes:
        return pseudonym(self.key, _PURPOSE).encode()

    def _of_pseudonym(self, text: str) -> str:
        return pseudonym(self._derived, text)


@dataclass(frozen=True)
class Forgotten:
    """Some forgotten shoppers.

    Args:
        shop: its declaration says which columns hold a shopper's id.
        persons: their hashes.
        hashed: None only where there are none.
    """

    shop: Shop
    persons: frozenset[str]
    hashed: PersonHash | None

    @classmethod
    def of(cls, installation: Installation) -> Forgotten:
        """All whom a shop's ledger has as forgotten, also those whose erasure is not finished.

        Raises:
            SettingsError: there are some, and the key is missing or another one.
            LedgerUnavailable: the ledger does not answer.
        """
        recorded = installation.ledger.forgotten()
        if not recorded:
            return cls(installation.shop, frozenset(), None)
        hashed = PersonHash.of(installation.settings)
        if set(recorded.values()) != {hashed.check}:
            raise SettingsError(
                f"FRESHRANK_PSEUDONYM_KEY is not the one with which shoppers of "
                f"{installation.shop.shop} were forgotten, so they would come back; set it to the "
                "one that it was"
            )
        return cls(installation.shop, frozenset(recorded), hashed)

    def columns(self, table: str) -> dict[str, bool]:
        """The columns of a source table with a shopper's id, and whether they are pseudonyms."""
        personal = self.shop.tables[table].personal
        named = self.shop.shopper_columns.get(table, ())
        return {name: personal.get(name) == "pseudonymise" for name in named}

    @property
    def pseudonymised(self) -> bool:
        """Whether ids in state, groups and lists are pseudonyms."""
        shopper = self.shop.shopper
        return self.shop.tables[shopper.table].personal.get(shopper.id) == "pseudonymise"

    def among(self, values: Any, *, pseudonymised: bool) -> Any:
        """Those of some stored ids that are theirs, once each.

        Args:
            values: an Arrow array.
        """
        distinct = pc.unique(values).drop_null()
        if self.hashed is None or len(distinct) == 0:
            return distinct.slice(0, 0)
        texts = distinct.cast(pa.string()).to_pylist()
        theirs = [
            self.hashed.of_stored(text, pseudonymised=pseudonymised) in self.persons
            for text in texts
        ]
        return distinct.filter(pa.array(theirs, pa.bool_()))

    def theirs(self, rows: Any, columns: Mapping[str, bool]) -> Any:
        """Which rows are theirs: a mask without nulls.

        Args:
            rows: a table or record batch.
            columns: those with a shopper's id, and whether they are pseudonyms; those that the
                rows lack are passed over.
        """
        mask: Any = pa.repeat(pa.scalar(False), rows.num_rows)
        for name, pseudonymised in columns.items():
            if name in rows.schema.names:
                ids = self.among(rows.column(name), pseudonymised=pseudonymised)
                mask = pc.or_(mask, pc.is_in(rows.column(name), value_set=ids))
        return mask

    def left_out(self, table: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Changes of a source table without theirs."""
        columns = self.columns(table)
        if not self.persons or not columns:
            yield from batches
            return
        for batch in batches:
            kept: Any = batch.filter(pc.invert(self.theirs(batch, columns)))
            if kept.num_rows:
                yield kept
