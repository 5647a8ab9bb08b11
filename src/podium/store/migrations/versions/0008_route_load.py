"""What came to every Route, as the gateways told it lately."""

import sqlalchemy as sa
from alembic import op

from podium.store.columns import PlainText, RowId

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "route_load",
        sa.Column("id", RowId, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("gateway", PlainText, nullable=False),
        sa.Column("epoch", PlainText, nullable=False),
        sa.Column("workspace", PlainText, nullable=False),
        sa.Column("route", PlainText, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("limited", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_route_load"),
    )
    op.create_index("ix_route_load_at", "route_load", ["at"])
