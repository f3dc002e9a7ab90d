"""Since when several fleets select a device, or do so no more"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("device", sa.Column("several_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
