"""The audit, as it is written and asked for; nothing was written to the table that was there"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TEXTS = ("namespace", "user_name", "verb", "kind", "name", "spec")


def upgrade() -> None:
    # In the order of its bytes, as all text here.
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.drop_table("audit")
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        *(sa.Column(name, text, nullable=False) for name in _TEXTS),
    )
    op.create_index("audit_by_namespace", "audit", ["namespace", "id"])
    op.create_index("audit_by_user", "audit", ["user_name", "id"])
    with op.batch_alter_table("store_meta") as meta:
        meta.add_column(
            sa.Column("audit_version", sa.BigInteger(), nullable=False, server_default="0")
        )


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
