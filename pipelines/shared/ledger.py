"""The ledger: the append-only record of manifests, model versions and decisions.

The registry's aliases are derived from it. PostgreSQL, MySQL/MariaDB or, for tests, SQLite.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from pipelines.shared.errors import LedgerUnavailable, SettingsError
from pipelines.shared.intervals import Interval, utc

_metadata = sa.MetaData()
_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")

_manifests = sa.Table(
    "freshrank_manifests",
    _metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("shop", sa.String(64), nullable=False),
    sa.Column("stage", sa.String(32), nullable=False),
    sa.Column("subject", sa.String(128), nullable=False),
    sa.Column("interval_start", sa.String(20), nullable=False),
    sa.Column("interval_end", sa.String(20), nullable=False),
    sa.Column("counts", sa.JSON, nullable=False),
    sa.Column("content_hash", sa.String(64), nullable=False),
    sa.Column("position", sa.JSON, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("recorded_at", sa.String(32), nullable=False),
    sa.Index("freshrank_manifests_by", "shop", "stage", "subject", "interval_start"),
)
_versions = sa.Table(
    "freshrank_versions",
    _metadata,
    sa.Column("shop", sa.String(64), primary_key=True),
    sa.Column("surface", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("interval_start", sa.String(20), nullable=False),
    sa.Column("interval_end", sa.String(20), nullable=False),
    sa.Column("strategy", sa.String(32), nullable=False),
    sa.Column("parent", sa.Integer),
    sa.Column("trained_through", sa.String(20), nullable=False),
    sa.Column("trees", sa.Integer, nullable=False),
    sa.Column("artifact", sa.String(512), nullable=False),
    sa.Column("content_hash", sa.String(64), nullable=False),
)
_decisions = sa.Table(
    "freshrank_decisions",
    _metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("shop", sa.String(64), nullable=False),
    sa.Column("surface", sa.String(64), nullable=False),
    sa.Column("interval_start", sa.String(20), nullable=False),
    sa.Column("interval_end", sa.String(20), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("compared_with", sa.Integer),
    sa.Column("promoted", sa.Integer),
    sa.Column("reasons", sa.JSON, nullable=False),
    sa.Column("evaluation", sa.JSON, nullable=False),
    sa.Column("decided_at", sa.String(32), nullable=False),
    sa.UniqueConstraint("shop", "surface", "interval_start"),
)
_locks = sa.Table("freshrank_locks", _metadata, sa.Column("name", sa.String(190), primary_key=True))

Outcome = Literal["promote", "reject"]


@dataclass(frozen=True)
class Manifest:
    """What a stage made durable for one interval.

    `position` is the source position after the interval (extract only).
    """

    stage: str
    subject: str
    interval: Interval
    counts: Mapping[str, int]
    content_hash: str
    position: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    version: int
    interval: Interval
    strategy: str
    parent: int | None
    trained_through: datetime
    trees: int
    artifact: str
    """Path of the model text inside the shop's part of the lake."""
    content_hash: str


@dataclass(frozen=True)
class Decision:
    """What was decided on an interval's challengers."""

    interval: Interval
    outcome: Outcome
    compared_with: int | None
    """The champion the challenger was compared with."""
    promoted: int | None
    """The version that became champion; None unless promoted."""
    reasons: tuple[str, ...]
    evaluation: Mapping[str, Any]


def champion_of(decisions: list[Decision], before: datetime | None = None) -> int | None:
    """The champion as a pure function of the decisions.

    Args:
        decisions: any order.
        before: only decisions on intervals that ended at or before this time count.

    Returns:
        The version promoted by the latest interval, or None.
    """
    promotions = [
        decision
        for decision in decisions
        if decision.promoted is not None and (before is None or decision.interval.end <= before)
    ]
    latest = max(promotions, key=lambda decision: decision.interval.end, default=None)
    return latest.promoted if latest else None


class Ledger:
    """One shop's view of the ledger.

    Args:
        url: SQLAlchemy URL.
        shop: the shop's name.
        surface: the ranking surface's name.

    Raises:
        SettingsError: the URL is none.
        LedgerUnavailable: the database cannot be reached.
    """

    def __init__(self, url: str, shop: str, surface: str) -> None:
        self._shop, self._surface = shop, surface
        try:
            self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        except sa.exc.ArgumentError as error:
            raise SettingsError(
                "FRESHRANK_LEDGER_URL is no SQLAlchemy URL; write it as "
                "postgresql+psycopg://user:password@host:port/ledger"
            ) from error
        with self._connect() as connection:
            present = sa.inspect(connection).has_table(_locks.name)
        if not present:
            self._create()

    def _create(self) -> None:
        # Two tasks may come first at once: the loser finds the tables made.
        for _ in range(2):
            with contextlib.suppress(IntegrityError, sa.exc.ProgrammingError):
                _metadata.create_all(self._engine)
                return

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            where = self._engine.url.render_as_string(hide_password=True)
            raise LedgerUnavailable(
                f"the ledger at {where} does not answer ({error.orig}); start it (`make up`) or "
                "mend FRESHRANK_LEDGER_URL, then clear the task"
            ) from error

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[sa.Connection]:
        """Hold a named lock of this shop, in one transaction, until the block ends.

        The lock is a row updated in the transaction: it works on every database and is
        released when the holder dies.
        """
        full = f"{self._shop}/{name}"
        with contextlib.suppress(IntegrityError), self._connect() as connection:
            if not connection.scalar(sa.select(_locks.c.name).where(_locks.c.name == full)):
                connection.execute(_locks.insert().values(name=full))
        with self._connect() as connection:
            connection.execute(_locks.update().where(_locks.c.name == full).values(name=full))
            yield connection

    def record(self, manifest: Manifest, connection: sa.Connection | None = None) -> None:
        """Append a manifest, unless it says what the last one for its subject already says.

        Args:
            connection: write inside this transaction (see `lock`).
        """
        last = self.manifest(manifest.stage, manifest.subject, manifest.interval)
        if last is not None and (last.content_hash, last.counts, last.details) == (
            manifest.content_hash, dict(manifest.counts), dict(manifest.details),
        ):  # fmt: skip
            return
        with contextlib.ExitStack() as stack:
            writer = connection or stack.enter_context(self._connect())
            writer.execute(
                _manifests.insert().values(
                    shop=self._shop,
                    stage=manifest.stage,
                    subject=manifest.subject,
                    **_edges(manifest.interval),
                    counts=dict(manifest.counts),
                    content_hash=manifest.content_hash,
                    position=dict(manifest.position),
                    details=dict(manifest.details),
                    seconds=manifest.seconds,
                    recorded_at=_now(),
                )
            )

    def manifest(self, stage: str, subject: str, interval: Interval) -> Manifest | None:
        """The standing manifest of a stage and subject for an interval."""
        found = self.manifests(stage, subject, interval.start)
        return next((each for each in found if each.interval == interval), None)

    def manifests(
        self, stage: str, subject: str | None = None, since: datetime | None = None
    ) -> list[Manifest]:
        """Standing manifests of a stage, oldest interval first.

        Args:
            since: only intervals that start at or after this time.
        """
        query = sa.select(_manifests).where(
            _manifests.c.shop == self._shop, _manifests.c.stage == stage
        )
        if subject is not None:
            query = query.where(_manifests.c.subject == subject)
        if since is not None:
            query = query.where(_manifests.c.interval_start >= _text(since))
        with self._connect() as connection:
            rows = connection.execute(query.order_by(_manifests.c.id)).mappings().all()
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

    def add_version(self, version: Version) -> None:
        """Record a registered version; a second time is a no-op."""
        if any(known.version == version.version for known in self.versions()):
            return
        values = asdict(version) | _edges(version.interval)
        del values["interval"]
        values["trained_through"] = _text(version.trained_through)
        with self._connect() as connection:
            connection.execute(
                _versions.insert().values(shop=self._shop, surface=self._surface, **values)
            )

    def versions(self) -> list[Version]:
        """Every registered version, oldest first."""
        query = sa.select(_versions).where(
            _versions.c.shop == self._shop, _versions.c.surface == self._surface
        )
        with self._connect() as connection:
            rows = connection.execute(query.order_by(_versions.c.version)).mappings().all()
        return [
            Version(
                row["version"], _interval(row), row["strategy"], row["parent"],
                utc(row["trained_through"]), row["trees"], row["artifact"], row["content_hash"],
            )
            for row in rows
        ]  # fmt: skip

    def version(self, number: int) -> Version:
        """One version by number.

        Raises:
            KeyError: no such version.
        """
        for found in self.versions():
            if found.version == number:
                return found
        raise KeyError(f"version {number} of {self._shop}/{self._surface}")

    def decisions(self, connection: sa.Connection | None = None) -> list[Decision]:
        """Every decision, oldest interval first.

        Args:
            connection: read inside this transaction (see `lock`).
        """
        query = sa.select(_decisions).where(
            _decisions.c.shop == self._shop, _decisions.c.surface == self._surface
        )
        with contextlib.ExitStack() as stack:
            reader = connection or stack.enter_context(self._connect())
            rows = reader.execute(query.order_by(_decisions.c.interval_start)).mappings().all()
        return [
            Decision(
                _interval(row), row["outcome"], row["compared_with"], row["promoted"],
                tuple(row["reasons"]), row["evaluation"],
            )
            for row in rows
        ]  # fmt: skip

    def decide(self, decision: Decision, connection: sa.Connection) -> None:
        """Append a decision inside the transaction that holds the surface's lock."""
        connection.execute(
            _decisions.insert().values(
                shop=self._shop,
                surface=self._surface,
                **_edges(decision.interval),
                outcome=decision.outcome,
                compared_with=decision.compared_with,
                promoted=decision.promoted,
                reasons=list(decision.reasons),
                evaluation=dict(decision.evaluation),
                decided_at=_now(),
            )
        )

    def champion(self, before: datetime | None = None) -> int | None:
        """The champion's version, now or as the ledger knew it before an interval began."""
        return champion_of(self.decisions(), before)


def _edges(interval: Interval) -> dict[str, str]:
    return {"interval_start": _text(interval.start), "interval_end": _text(interval.end)}


def _interval(row: Mapping[Any, Any]) -> Interval:
    return Interval.of(row["interval_start"], row["interval_end"])


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
