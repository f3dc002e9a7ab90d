"""Fewer index entries for a change of a device: none for its owner, who is known by its fleet, nor
for an alias that it has not; on PostgreSQL, pages with room for the next version of each row"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("device_by_owner", "device")
    op.drop_index("device_by_alias", "device")
    op.create_index(
        "device_by_alias",
        "device",
        ["namespace", "alias", "name"],
        unique=False,
        sqlite_where=sa.text("alias IS NOT NULL"),
        postgresql_where=sa.text("alias IS NOT NULL"),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Rows that are there keep their pages until they change.
        op.execute("ALTER TABLE device SET (fillfactor = 50)")


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
