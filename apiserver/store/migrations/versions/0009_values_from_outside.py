"""What template versions take from outside for some devices only, and who waits for it"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TEXTS = ("manifest", "revision", "etag", "updated_at", "mark", "problem")


def upgrade() -> None:
    # In the order of its bytes, as all text here.
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "frozen_value",
        sa.Column("key", text, primary_key=True, nullable=False),
        sa.Column("version", text, nullable=False),
        sa.Column("input", text, nullable=False),
        sa.Column("reference", text, nullable=False),
        sa.Column("revision_of", text, nullable=False, server_default=""),
        *(sa.Column(name, text, nullable=True) for name in _TEXTS),
        sa.Column("files", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("passing", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.create_index("frozen_value_by_version", "frozen_value", ["version", "key"])
    op.create_index("frozen_value_by_mark", "frozen_value", ["mark"], unique=True)
    op.add_column("device", sa.Column("waits_for", text, nullable=True))


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
