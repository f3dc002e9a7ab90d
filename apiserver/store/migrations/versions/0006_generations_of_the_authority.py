"""Generations of the authority, each sealed for who has the one before it"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "authority",
        sa.Column("number", sa.BigInteger(), primary_key=True, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("trusted_until", sa.Text(), nullable=True),
    )
    if op.get_bind().dialect.name == "postgresql":
        for column in ("fingerprint", "sealed", "trusted_until"):
            op.execute(f'ALTER TABLE authority ALTER COLUMN {column} TYPE text COLLATE "C"')


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
