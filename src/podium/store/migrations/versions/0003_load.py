"""What the gateways counted for every cluster lately, and when each of them last did."""

import sqlalchemy as sa
from alembic import op

from podium.store.columns import Json, PlainText, RowId

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "load",
        sa.Column("id", RowId, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("gateway", PlainText, nullable=False),
        sa.Column("epoch", PlainText, nullable=False),
        sa.Column("workspace", PlainText, nullable=False),
        sa.Column("deployment", PlainText, nullable=False),
        sa.Column("revision", PlainText, nullable=False),
        sa.Column("role", PlainText, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("active", sa.BigInteger, nullable=False),
        sa.Column("time_ms", sa.Float(53), nullable=False),
        sa.Column("buckets", Json, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_load"),
    )
    op.create_index("ix_load_at", "load", ["at"])
    op.create_index("ix_load_deployment", "load", ["workspace", "deployment", "at"])
    op.create_table(
        "load_reports",
        sa.Column("gateway", PlainText, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("gateway", name="pk_load_reports"),
    )
