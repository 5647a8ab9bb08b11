"""How much processor time the replicas have used whose number follows it."""

import sqlalchemy as sa
from alembic import op

from podium.store.columns import PlainText, RowId

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "processor_times",
        sa.Column("id", RowId, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("workspace", PlainText, nullable=False),
        sa.Column("deployment", PlainText, nullable=False),
        sa.Column("revision", PlainText, nullable=False),
        sa.Column("replica", PlainText, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("processors", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_processor_times"),
    )
    op.create_index("ix_processor_times_at", "processor_times", ["at"])
    op.create_index("ix_processor_times_deployment", "processor_times", ["workspace", "deployment", "at"])
