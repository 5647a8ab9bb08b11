"""Which installation runs a target's replicas."""

import sqlalchemy as sa
from alembic import op

from podium.store.columns import PlainText, UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "places",
        sa.Column("target", PlainText, nullable=False),
        sa.Column("place", PlainText, nullable=False),
        sa.Column("description", PlainText, nullable=False),
        sa.Column("since", UtcTime, nullable=False),
        sa.PrimaryKeyConstraint("target", name="pk_places"),
    )
