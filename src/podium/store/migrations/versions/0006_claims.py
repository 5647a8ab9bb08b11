"""What people have put into tokens."""

import sqlalchemy as sa
from alembic import op

from podium.store.columns import Json

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tokens", sa.Column("claims", Json))
