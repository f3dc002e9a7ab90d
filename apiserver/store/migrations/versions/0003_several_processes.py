"""Several processes on one database: their last commits, the authority that they share; on
PostgreSQL, text in the order of its bytes, as SQLite has it"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "commit_mark",
        sa.Column("writer", sa.Text(), primary_key=True, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    with op.batch_alter_table("store_meta") as meta:
        meta.add_column(sa.Column("authority", sa.Text(), nullable=False, server_default=""))
        meta.drop_column("writer")
        meta.drop_column("batch")
    bind = op.get_bind()
    if bind.dialect.name == "postgresql":
        # Pages of a list go on by name, and names are compared here and in Python. A language's
        # order is another on each system, and may change with its next update.
        for table, column in _text_columns(bind):
            op.execute(f'ALTER TABLE "{table}" ALTER COLUMN "{column}" TYPE text COLLATE "C"')


def _text_columns(bind: sa.Connection) -> list[tuple[str, str]]:
    found = bind.exec_driver_sql(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND data_type = 'text'"
        " AND collation_name IS DISTINCT FROM 'C' ORDER BY table_name, column_name"
    )
    return [(row[0], row[1]) for row in found]


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
