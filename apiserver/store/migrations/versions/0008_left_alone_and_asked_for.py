"""Devices that are left alone after a restore, and what people ask of single applications"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # In the order of its bytes, as all text here.
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    # Not by a copy of the table, which has a hundred thousand rows.
    op.add_column("device", sa.Column("pause", sa.BigInteger(), nullable=False, server_default="0"))
    for name in ("overrides", "fleet_overrides"):
        op.add_column("device", sa.Column(name, text, nullable=True))
    op.create_table(
        "fleet_override",
        sa.Column("namespace", text, primary_key=True, nullable=False),
        sa.Column("fleet", text, primary_key=True, nullable=False),
        sa.Column("overrides", text, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
