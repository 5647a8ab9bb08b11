"""What tokens are for, and whose place they took."""

import sqlalchemy as sa
from alembic import op

from podium.store.columns import Json, PlainText, UtcTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("deployments", Json),
        sa.Column("verbs", Json),
        sa.Column("retires_at", UtcTime),
        sa.Column("rotated_from", PlainText),
        sa.Column("rotated_to", PlainText),
    ):
        op.add_column("tokens", column)
