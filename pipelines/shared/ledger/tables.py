"""The tables of the ledger's database. Times are texts, which sort by time on every database."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()
_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")

MANIFESTS = sa.Table(
    "freshrank_manifests",
    METADATA,
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
VERSIONS = sa.Table(
    "freshrank_versions",
    METADATA,
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
DECISIONS = sa.Table(
    "freshrank_decisions",
    METADATA,
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
TURNS = sa.Table(
    "freshrank_turns",
    METADATA,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("shop", sa.String(64), nullable=False),
    sa.Column("surface", sa.String(64), nullable=False),
    sa.Column("holder", sa.String(600), nullable=False),
    sa.Column("interval_start", sa.String(20), nullable=False),
    sa.Column("interval_end", sa.String(20), nullable=False),
    sa.Column("asked_at", sa.String(32), nullable=False),
    sa.Column("taken_at", sa.String(32)),
    sa.Column("heartbeat_at", sa.String(32), nullable=False),
    sa.Column("ended_at", sa.String(32)),
    sa.Column("ended_by", sa.String(600)),
)
FORGOTTEN = sa.Table(
    "freshrank_forgotten",
    METADATA,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("shop", sa.String(64), nullable=False),
    sa.Column("person", sa.String(64), nullable=False),
    sa.Column("key_check", sa.String(16), nullable=False),
    sa.Column("event", sa.String(16), nullable=False),
    sa.Column("actor", sa.String(190), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("recorded_at", sa.String(32), nullable=False),
)
LOCKS = sa.Table("freshrank_locks", METADATA, sa.Column("name", sa.String(190), primary_key=True))
