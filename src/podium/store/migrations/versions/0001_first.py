"""The first tables."""

import sqlalchemy as sa
from alembic import op

from podium.store.columns import Json, PlainText, RowId, UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _clock()
    _resources()
    _work()
    _changes()
    _events()
    _audit()
    _samples_and_gateways()
    _aliases_and_tokens()


def _clock() -> None:
    clock = op.create_table(
        "clock",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("changes_floor", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clock"),
        sa.CheckConstraint("id = 1", name=op.f("ck_clock_one_row")),
    )
    op.bulk_insert(clock, [{"id": 1, "value": 0, "changes_floor": 0}])


def _resources() -> None:
    op.create_table(
        "resources",
        sa.Column("uid", PlainText, nullable=False),
        sa.Column("kind", PlainText, nullable=False),
        sa.Column("workspace", PlainText, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("resource_version", sa.BigInteger, nullable=False),
        sa.Column("labels", Json, nullable=False),
        sa.Column("annotations", Json, nullable=False),
        sa.Column("finalizers", Json, nullable=False),
        sa.Column("owner", Json),
        sa.Column("owner_uid", PlainText),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        sa.Column("deletion_requested_at", UtcTime),
        sa.Column("spec", Json, nullable=False),
        sa.Column("status", Json, nullable=False),
        sa.PrimaryKeyConstraint("uid", name="pk_resources"),
        sa.UniqueConstraint("kind", "workspace", "name", name="uq_resources_kind_workspace_name"),
    )
    op.create_index("ix_resources_owner_uid", "resources", ["owner_uid"])
    op.create_table(
        "selectors",
        sa.Column("uid", PlainText, nullable=False),
        sa.Column("source", PlainText, nullable=False),
        sa.Column("path", PlainText, nullable=False),
        sa.Column("value", PlainText, nullable=False),
        sa.PrimaryKeyConstraint("uid", "source", "path", name="pk_selectors"),
        sa.ForeignKeyConstraint(
            ["uid"], ["resources.uid"], ondelete="CASCADE", name="fk_selectors_uid_resources"
        ),
    )
    op.create_index("ix_selectors_match", "selectors", ["source", "path", "value"])


def _work() -> None:
    op.create_table(
        "work",
        sa.Column("uid", PlainText, nullable=False),
        sa.Column("kind", PlainText, nullable=False),
        sa.Column("workspace", PlainText, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("next_at", UtcTime),
        sa.Column("worker", PlainText),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("lease_until", UtcTime),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("uid", name="pk_work"),
        sa.ForeignKeyConstraint(["uid"], ["resources.uid"], ondelete="CASCADE", name="fk_work_uid_resources"),
    )
    op.create_index("ix_work_next_at", "work", ["next_at"])
    op.create_index("ix_work_lease_until", "work", ["lease_until"])


def _changes() -> None:
    op.create_table(
        "changes",
        sa.Column("version", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", UtcTime, nullable=False),
        sa.Column("type", PlainText, nullable=False),
        sa.Column("kind", PlainText, nullable=False),
        sa.Column("workspace", PlainText, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("uid", PlainText, nullable=False),
        sa.Column("object", Json, nullable=False),
        sa.PrimaryKeyConstraint("version", "ordinal", name="pk_changes"),
    )
    op.create_index("ix_changes_at", "changes", ["at"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", RowId, nullable=False),
        sa.Column("first_at", UtcTime, nullable=False),
        sa.Column("at", UtcTime, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("workspace", PlainText, nullable=False),
        sa.Column("kind", PlainText, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("uid", PlainText, nullable=False),
        sa.Column("type", PlainText, nullable=False),
        sa.Column("reason", PlainText, nullable=False),
        sa.Column("message", PlainText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_at", "events", ["at"])
    op.create_index("ix_events_uid", "events", ["uid"])
    op.create_index("ix_events_object", "events", ["workspace", "kind", "name"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", RowId, nullable=False),
        sa.Column("at", UtcTime, nullable=False),
        sa.Column("actor", PlainText, nullable=False),
        sa.Column("actor_kind", PlainText, nullable=False),
        sa.Column("request_id", PlainText),
        sa.Column("verb", PlainText, nullable=False),
        sa.Column("kind", PlainText),
        sa.Column("workspace", PlainText),
        sa.Column("name", PlainText),
        sa.Column("uid", PlainText),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("summary", PlainText, nullable=False),
        sa.Column("detail", Json),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_object", "audit", ["workspace", "kind", "name"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION podium_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION podium_append_only()"
        )
    else:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
            )


def _samples_and_gateways() -> None:
    op.create_table(
        "samples",
        sa.Column("id", RowId, nullable=False),
        sa.Column("rollout_uid", PlainText, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("gateway", PlainText, nullable=False),
        sa.Column("epoch", PlainText, nullable=False),
        sa.Column("weight_bp", sa.Integer, nullable=False),
        sa.Column("stable", Json, nullable=False),
        sa.Column("candidate", Json, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_samples"),
        sa.ForeignKeyConstraint(
            ["rollout_uid"], ["resources.uid"], ondelete="CASCADE", name="fk_samples_rollout_uid_resources"
        ),
        sa.UniqueConstraint(
            "rollout_uid", "gateway", "epoch", "at", name="uq_samples_rollout_uid_gateway_epoch_at"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_samples_at", "samples", ["at"])
    op.create_table(
        "gateways",
        sa.Column("name", PlainText, nullable=False),
        sa.Column("seen_at", UtcTime, nullable=False),
        sa.Column("observed_version", sa.BigInteger, nullable=False),
        sa.Column("rejected", Json, nullable=False),
        sa.Column("detail", Json, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_gateways"),
    )


def _aliases_and_tokens() -> None:
    op.create_table(
        "alias_history",
        sa.Column("id", RowId, nullable=False),
        sa.Column("at", UtcTime, nullable=False),
        sa.Column("workspace", PlainText, nullable=False),
        sa.Column("model", PlainText, nullable=False),
        sa.Column("alias", PlainText, nullable=False),
        sa.Column("version", PlainText),
        sa.Column("previous", PlainText),
        sa.Column("actor", PlainText, nullable=False),
        sa.Column("commit_version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alias_history"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_alias_history_model", "alias_history", ["workspace", "model"])
    op.create_table(
        "tokens",
        sa.Column("id", PlainText, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("role", PlainText, nullable=False),
        sa.Column("workspaces", Json, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("created_by", PlainText, nullable=False),
        sa.Column("expires_at", UtcTime),
        sa.Column("revoked_at", UtcTime),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
    )
