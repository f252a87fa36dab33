"""One shop's view of the ledger, in PostgreSQL, MySQL/MariaDB or, for tests, SQLite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from pipelines.shared.errors import LedgerBusy
from pipelines.shared.intervals import Interval, utc
from pipelines.shared.ledger.database import LOCK_S, Database
from pipelines.shared.ledger.records import (
    Decision,
    Forgetting,
    Manifest,
    Version,
    champion_of,
)
from pipelines.shared.ledger.tables import (
    DECISIONS,
    FORGOTTEN,
    LOCKS,
    MANIFESTS,
    METADATA,
    VERSIONS,
)
from pipelines.shared.ledger.turns import Turns


class Ledger:
    """One shop's view of the ledger.

    Args:
        url: SQLAlchemy URL.
        shop: the shop's name.
        surface: the ranking surface's name.
        lock_s: for how many seconds a lock is waited for.

    Every method raises `LedgerUnavailable`, `LedgerBusy` or `LedgerReadOnly` where the database
    does not do its part in time.

    Raises:
        SettingsError: the URL is no SQLAlchemy URL.
    """

    def __init__(self, url: str, shop: str, surface: str, lock_s: float = LOCK_S) -> None:
        self._shop, self._surface = shop, surface
        self._database = Database(url, lock_s)
        self._complete()

    def _complete(self) -> None:
        """Create the tables that are missing: all, those of a newer version, or after a kill."""
        for attempts_left in reversed(range(len(METADATA.tables) + 1)):
            with self._connect() as connection:
                present = sa.inspect(connection).get_table_names()
            if METADATA.tables.keys() <= set(present):
                return
            # Several processes may be the first at once: the slower ones look again.
            with contextlib.ExitStack() as stack:
                if attempts_left:
                    stack.enter_context(contextlib.suppress(sa.exc.DBAPIError, LedgerBusy))
                connection = stack.enter_context(self._connect())
                METADATA.create_all(connection)
                for index in MANIFESTS.indexes:
                    index.create(connection, checkfirst=True)

    @property
    def turns(self) -> Turns:
        """The turns of the shop's surface."""
        return Turns(self, self._shop, self._surface)

    @property
    def dialect(self) -> str:
        """The kind of the ledger's database: postgresql, mysql, mariadb or sqlite."""
        return self._database.dialect

    def _connect(self) -> contextlib.AbstractContextManager[sa.Connection]:
        return self._database.transaction()

    @contextlib.contextmanager
    def transaction(self, within: sa.Connection | None = None) -> Iterator[sa.Connection]:
        """A transaction of the ledger: a given one, or one of its own."""
        if within is not None:
            yield within
            return
        with self._connect() as connection:
            yield connection

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[sa.Connection]:
        """Hold a named lock of this shop, in one transaction, until the block ends.

        The lock is a row updated in the transaction: it works on every database and is
        released when the holder dies. Errors of the block pass through as they are.

        Raises:
            LedgerBusy: somebody else held it for longer than `lock_s`.
        """
        full = f"{self._shop}/{name}"
        with contextlib.suppress(IntegrityError), self._connect() as connection:
            if not connection.scalar(sa.select(LOCKS.c.name).where(LOCKS.c.name == full)):
                connection.execute(LOCKS.insert().values(name=full))
        with self._connect() as connection:
            named = LOCKS.update().where(LOCKS.c.name == full)
            self._database.lock(connection, named.values(name=full))
            yield connection

    def decision_lock(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """The lock of the surface under which turns are taken, versions registered, and decided."""
        return self.lock(f"decide/{self._surface}")

    def record(self, manifest: Manifest, connection: sa.Connection | None = None) -> None:
        """Append a manifest, unless it equals the standing one for its subject and interval.

        Args:
            connection: write inside this transaction (see `lock`).
        """
        last = self.manifest(manifest.stage, manifest.subject, manifest.interval)
        if last is not None and (last.content_hash, last.counts, last.details) == (
            manifest.content_hash, dict(manifest.counts), dict(manifest.details),
        ):  # fmt: skip
            return
        with self.transaction(connection) as writer:
            writer.execute(
                MANIFESTS.insert().values(shop=self._shop, **_values(manifest), recorded_at=_now())
            )

    def manifest(self, stage: str, subject: str, interval: Interval) -> Manifest | None:
        """The standing manifest of a stage and subject for an interval: the one recorded last."""
        standing = self.manifests(stage, subject, interval.start)
        return next((each for each in standing if each.interval == interval), None)

    def manifests(
        self, stage: str, subject: str | None = None, since: datetime | None = None
    ) -> list[Manifest]:
        """Standing manifests of a stage, oldest interval first.

        Args:
            since: only intervals that start at or after this time.
        """
        query = sa.select(MANIFESTS).where(
            MANIFESTS.c.shop == self._shop, MANIFESTS.c.stage == stage
        )
        if subject is not None:
            query = query.where(MANIFESTS.c.subject == subject)
        if since is not None:
            query = query.where(MANIFESTS.c.interval_start >= _text(since))
        rows = self._read(query.order_by(MANIFESTS.c.id))
        standing = {(row["subject"], row["interval_start"]): row for row in rows}
        return sorted(
            (
                Manifest(
                    row["stage"], row["subject"], _interval(row), row["counts"],
                    row["content_hash"], row["position"], row["details"], row["seconds"],
                )
                for row in standing.values()
            ),
            key=lambda manifest: (manifest.interval, manifest.subject),
        )  # fmt: skip

    def strike(self, stage: str, subject: str, interval: Interval, name: str) -> None:
        """Take one entry out of the details of every manifest of a stage, subject and interval.

        The one change of what was recorded: where an entry quotes a forgotten shopper's values.
        """
        where = (
            (MANIFESTS.c.shop == self._shop) & (MANIFESTS.c.stage == stage)
            & (MANIFESTS.c.subject == subject)
            & (MANIFESTS.c.interval_start == _text(interval.start))
        )  # fmt: skip
        with self._connect() as connection:
            for row in connection.execute(sa.select(MANIFESTS).where(where)).mappings().all():
                kept = {key: each for key, each in row["details"].items() if key != name}
                if kept != row["details"]:
                    one = MANIFESTS.update().where(MANIFESTS.c.id == row["id"])
                    connection.execute(one.values(details=kept))

    def record_forgetting(self, forgetting: Forgetting) -> None:
        """Append that forgetting a shopper began or ended."""
        values = {each.name: getattr(forgetting, each.name) for each in fields(forgetting)}
        values |= {"shop": self._shop, "details": dict(forgetting.details)}
        with self._connect() as connection:
            connection.execute(FORGOTTEN.insert().values(**values, recorded_at=_now()))

    def forgettings(self) -> list[Forgetting]:
        """Every recorded step of forgetting a shopper, oldest first."""
        query = sa.select(FORGOTTEN).where(FORGOTTEN.c.shop == self._shop)
        return [
            Forgetting(**{each.name: row[each.name] for each in fields(Forgetting)})
            for row in self._read(query.order_by(FORGOTTEN.c.id))
        ]

    def forgotten(self) -> dict[str, str]:
        """Everybody whose forgetting began: hash → check of the hash's key."""
        query = sa.select(FORGOTTEN.c.person, FORGOTTEN.c.key_check).distinct()
        rows = self._read(query.where(FORGOTTEN.c.shop == self._shop))
        return {row["person"]: row["key_check"] for row in rows}

    def add_version(self, version: Version, connection: sa.Connection | None = None) -> None:
        """Record a registered version; recording it again does nothing.

        Args:
            connection: write inside this transaction (see `lock`).
        """
        if any(known.version == version.version for known in self.versions()):
            return
        values = {"shop": self._shop, "surface": self._surface, **_values(version)}
        with self.transaction(connection) as writer:
            writer.execute(VERSIONS.insert().values(**values))

    def versions(self) -> list[Version]:
        """Every registered version, oldest first."""
        query = sa.select(VERSIONS).where(
            VERSIONS.c.shop == self._shop, VERSIONS.c.surface == self._surface
        )
        return [
            Version(
                row["version"], _interval(row), row["strategy"], row["parent"],
                utc(row["trained_through"]), row["trees"], row["artifact"], row["content_hash"],
            )
            for row in self._read(query.order_by(VERSIONS.c.version))
        ]  # fmt: skip

    def version(self, number: int) -> Version:
        """One version by number.

        Raises:
            KeyError: no such version.
        """
        for version in self.versions():
            if version.version == number:
                return version
        raise KeyError(f"version {number} of {self._shop}/{self._surface}")

    def decisions(self, connection: sa.Connection | None = None) -> list[Decision]:
        """Every decision, oldest interval first.

        Args:
            connection: read inside this transaction (see `lock`).
        """
        query = sa.select(DECISIONS).where(
            DECISIONS.c.shop == self._shop, DECISIONS.c.surface == self._surface
        )
        return [
            Decision(
                _interval(row), row["outcome"], row["compared_with"], row["promoted"],
                tuple(row["reasons"]), row["evaluation"],
            )
            for row in self._read(query.order_by(DECISIONS.c.interval_start), connection)
        ]  # fmt: skip

    def decide(self, decision: Decision, connection: sa.Connection) -> None:
        """Append a decision inside the transaction that holds the surface's lock."""
        values = {"shop": self._shop, "surface": self._surface, **_values(decision)}
        connection.execute(DECISIONS.insert().values(**values, decided_at=_now()))

    def champion(self, before: datetime | None = None) -> int | None:
        """The champion's version, now or as the ledger knew it before an interval began."""
        return champion_of(self.decisions(), before)

    def _read(
        self, query: sa.Select[Any], connection: sa.Connection | None = None
    ) -> Sequence[sa.RowMapping]:
        with self.transaction(connection) as reader:
            return reader.execute(query).mappings().all()


def _values(record: Manifest | Version | Decision) -> dict[str, Any]:
    """A record's fields as the columns of its table; the interval has two."""
    values = {each.name: getattr(record, each.name) for each in fields(record)}
    interval = values.pop("interval")
    times = {"interval_start": interval.start, "interval_end": interval.end}
    if isinstance(record, Version):
        times["trained_through"] = record.trained_through
    mappings = {name: dict(each) for name, each in values.items() if isinstance(each, Mapping)}
    return values | mappings | {name: _text(moment) for name, moment in times.items()}


def _interval(row: Mapping[Any, Any]) -> Interval:
    return Interval.of(row["interval_start"], row["interval_end"])


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
