"""Secrets are sealed: which keys values need, and by which of them a content is"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # In the order of its bytes, as all text here.
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "encryption_key",
        sa.Column("name", text, primary_key=True, nullable=False),
        sa.Column("canary", text, nullable=False),
    )
    op.add_column("content", sa.Column("sealed_by", text, nullable=False, server_default=""))
    op.create_index(
        "content_by_key",
        "content",
        ["sealed_by", "digest"],
        unique=False,
        sqlite_where=sa.text("digest < 'hmac-sha256;'"),
        postgresql_where=sa.text("digest < 'hmac-sha256;'"),
    )


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
