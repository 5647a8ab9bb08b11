"""How far shadows lie from their champions, and how far their records were read."""

import sqlalchemy as sa
from alembic import op

from podium.store.columns import Json, PlainText, UtcTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("shadow_uid", PlainText, nullable=False),
        sa.Column("workspace", PlainText, nullable=False),
        sa.Column("shadow", PlainText, nullable=False),
        sa.Column("edition", sa.BigInteger, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        sa.Column("items", Json, nullable=False),
        sa.Column("state", Json, nullable=False),
        sa.ForeignKeyConstraint(
            ["shadow_uid"],
            ["resources.uid"],
            name="fk_comparisons_shadow_uid_resources",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("shadow_uid", name="pk_comparisons"),
    )
    op.create_index("ix_comparisons_workspace", "comparisons", ["workspace"])
