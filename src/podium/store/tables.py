"""The tables, as SQLAlchemy Core knows them. Read by every module of this package; `migrations` makes them.

A test compares this with what the migrations make, on both databases: a change here needs a migration.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
)

from podium.store.columns import Json, PlainText, RowId, UtcTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row. Every write transaction begins by counting `value` up: the row's lock is what puts them in one order.
clock = Table(
    "clock",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    # Changes up to and including this version were pruned.
    Column("changes_floor", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

resources = Table(
    "resources",
    metadata,
    Column("uid", PlainText, primary_key=True),
    Column("kind", PlainText, nullable=False),
    Column("workspace", PlainText, nullable=False),
    Column("name", PlainText, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("resource_version", BigInteger, nullable=False),
    Column("labels", Json, nullable=False),
    Column("annotations", Json, nullable=False),
    Column("finalizers", Json, nullable=False),
    Column("owner", Json),
    Column("owner_uid", PlainText, index=True),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("deletion_requested_at", UtcTime),
    Column("spec", Json, nullable=False),
    Column("status", Json, nullable=False),
    UniqueConstraint("kind", "workspace", "name"),
)

# What label and field selectors look at: one row per label and per selectable field that is set.
selectors = Table(
    "selectors",
    metadata,
    Column("uid", PlainText, ForeignKey("resources.uid", ondelete="CASCADE"), primary_key=True),
    Column("source", PlainText, primary_key=True),
    Column("path", PlainText, primary_key=True),
    Column("value", PlainText, nullable=False),
    Index("ix_selectors_match", "source", "path", "value"),
)

# One row per reconciled object. While a lease is held `next_at` is null, unless somebody woke the row since.
work = Table(
    "work",
    metadata,
    Column("uid", PlainText, ForeignKey("resources.uid", ondelete="CASCADE"), primary_key=True),
    Column("kind", PlainText, nullable=False),
    Column("workspace", PlainText, nullable=False),
    Column("name", PlainText, nullable=False),
    Column("next_at", UtcTime, index=True),
    Column("worker", PlainText),
    Column("token", BigInteger, nullable=False),
    Column("lease_until", UtcTime, index=True),
    Column("attempts", Integer, nullable=False),
)

# One row per object that a transaction changed: what a watch reads.
changes = Table(
    "changes",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False, index=True),
    Column("type", PlainText, nullable=False),
    Column("kind", PlainText, nullable=False),
    Column("workspace", PlainText, nullable=False),
    Column("name", PlainText, nullable=False),
    Column("uid", PlainText, nullable=False),
    Column("object", Json, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("first_at", UtcTime, nullable=False),
    Column("at", UtcTime, nullable=False, index=True),
    Column("count", Integer, nullable=False),
    Column("workspace", PlainText, nullable=False),
    Column("kind", PlainText, nullable=False),
    Column("name", PlainText, nullable=False),
    Column("uid", PlainText, nullable=False, index=True),
    Column("type", PlainText, nullable=False),
    Column("reason", PlainText, nullable=False),
    Column("message", PlainText, nullable=False),
    Index("ix_events_object", "workspace", "kind", "name"),
    sqlite_autoincrement=True,
)

# Append-only: triggers refuse updates and deletes.
audit = Table(
    "audit",
    metadata,
    Column("seq", RowId, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("actor", PlainText, nullable=False),
    Column("actor_kind", PlainText, nullable=False),
    Column("request_id", PlainText),
    Column("verb", PlainText, nullable=False),
    Column("kind", PlainText),
    Column("workspace", PlainText),
    Column("name", PlainText),
    Column("uid", PlainText),
    Column("version", BigInteger, nullable=False),
    Column("summary", PlainText, nullable=False),
    Column("detail", Json),
    Index("ix_audit_object", "workspace", "kind", "name"),
    sqlite_autoincrement=True,
)

samples = Table(
    "samples",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("rollout_uid", PlainText, ForeignKey("resources.uid", ondelete="CASCADE"), nullable=False),
    Column("at", Float(53), nullable=False, index=True),
    Column("gateway", PlainText, nullable=False),
    Column("epoch", PlainText, nullable=False),
    Column("weight_bp", Integer, nullable=False),
    Column("stable", Json, nullable=False),
    Column("candidate", Json, nullable=False),
    # A report that is sent again adds nothing.
    UniqueConstraint("rollout_uid", "gateway", "epoch", "at"),
    sqlite_autoincrement=True,
)

gateways = Table(
    "gateways",
    metadata,
    Column("name", PlainText, primary_key=True),
    Column("seen_at", UtcTime, nullable=False),
    Column("observed_version", BigInteger, nullable=False),
    Column("rejected", Json, nullable=False),
    Column("detail", Json, nullable=False),
)

# Cumulative counters of every cluster, as the gateways told them in the last quarter of an hour.
load = Table(
    "load",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("at", Float(53), nullable=False, index=True),
    Column("gateway", PlainText, nullable=False),
    Column("epoch", PlainText, nullable=False),
    Column("workspace", PlainText, nullable=False),
    Column("deployment", PlainText, nullable=False),
    Column("revision", PlainText, nullable=False),
    Column("role", PlainText, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("active", BigInteger, nullable=False),
    Column("time_ms", Float(53), nullable=False),
    Column("buckets", Json, nullable=False),
    Index("ix_load_deployment", "workspace", "deployment", "at"),
)

# The same of every Route, whoever answered.
route_load = Table(
    "route_load",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("at", Float(53), nullable=False, index=True),
    Column("gateway", PlainText, nullable=False),
    Column("epoch", PlainText, nullable=False),
    Column("workspace", PlainText, nullable=False),
    Column("route", PlainText, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("limited", BigInteger, nullable=False),
)

# A quiet gateway has nothing to tell but that it looked.
load_reports = Table(
    "load_reports",
    metadata,
    Column("gateway", PlainText, primary_key=True),
    Column("at", Float(53), nullable=False),
)

# Cumulative processor time of the ready replicas whose number follows it, of the last quarter of an hour.
processor_times = Table(
    "processor_times",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("at", Float(53), nullable=False, index=True),
    Column("workspace", PlainText, nullable=False),
    Column("deployment", PlainText, nullable=False),
    Column("revision", PlainText, nullable=False),
    Column("replica", PlainText, nullable=False),
    Column("seconds", Float(53), nullable=False),
    # How many of them it is meant to have.
    Column("processors", Float(53), nullable=False),
    Index("ix_processor_times_deployment", "workspace", "deployment", "at"),
)

# A shadow revision beside its champions; it goes with the revision.
comparisons = Table(
    "comparisons",
    metadata,
    Column("shadow_uid", PlainText, ForeignKey("resources.uid", ondelete="CASCADE"), primary_key=True),
    Column("workspace", PlainText, nullable=False, index=True),
    Column("shadow", PlainText, nullable=False),
    # Counts the writes, so that of two writers one finds out.
    Column("edition", BigInteger, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("items", Json, nullable=False),
    Column("state", Json, nullable=False),
)

# Where an alias points now stands in its Model's status; this is how it came there.
alias_history = Table(
    "alias_history",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("workspace", PlainText, nullable=False),
    Column("model", PlainText, nullable=False),
    Column("alias", PlainText, nullable=False),
    Column("version", PlainText),
    Column("previous", PlainText),
    Column("actor", PlainText, nullable=False),
    Column("commit_version", BigInteger, nullable=False),
    Index("ix_alias_history_model", "workspace", "model"),
    sqlite_autoincrement=True,
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", PlainText, primary_key=True),
    Column("name", PlainText, nullable=False),
    Column("role", PlainText, nullable=False),
    Column("workspaces", Json, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", PlainText, nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
    Column("deployments", Json),
    Column("verbs", Json),
    Column("retires_at", UtcTime),
    Column("rotated_from", PlainText),
    Column("rotated_to", PlainText),
    Column("claims", Json),
)

# Where the replicas of a target run that knows only its own machine: one installation per database.
places = Table(
    "places",
    metadata,
    Column("target", PlainText, primary_key=True),
    Column("place", PlainText, nullable=False),
    Column("description", PlainText, nullable=False),
    Column("since", UtcTime, nullable=False),
)
