"""Frozen inputs: which a device has of its own, and the key of digests of secrets"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "store_meta", sa.Column("content_key", sa.Text(), nullable=False, server_default="")
    )
    op.add_column("device", sa.Column("inputs_digest", sa.Text(), nullable=True))
    op.create_index(
        "device_following",
        "device",
        ["namespace", "name"],
        unique=False,
        sqlite_where=sa.text("inputs_digest IS NOT NULL"),
        postgresql_where=sa.text("inputs_digest IS NOT NULL"),
    )


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
