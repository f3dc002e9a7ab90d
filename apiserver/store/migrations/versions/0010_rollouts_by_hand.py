"""Devices whose turn has not come, and how often a device was asked to try again"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("rollout_retry", "behind"):
        op.add_column(
            "device", sa.Column(column, sa.BigInteger(), nullable=False, server_default="0")
        )


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
