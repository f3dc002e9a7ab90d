"""What events are about, so that those of one object, and the old ones, are found by index"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("object", sa.Column("about", sa.Text(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        op.execute('ALTER TABLE object ALTER COLUMN about TYPE text COLLATE "C"')
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "UPDATE object SET about = coalesce(json_extract(spec, '$.involvedObject.name'), '')"
            " WHERE kind = 'CoreEvent'"
        )
    else:
        op.execute(
            "UPDATE object SET about = coalesce(CAST(spec AS json) #>> '{involvedObject,name}', '')"
            " WHERE kind = 'CoreEvent'"
        )
    is_event = sa.text("about IS NOT NULL")
    for index, columns in (
        ("object_by_about", ["about", "namespace", "name"]),
        ("object_event_by_age", ["created_at"]),
    ):
        op.create_index(index, "object", columns, sqlite_where=is_event, postgresql_where=is_event)


def downgrade() -> None:
    raise NotImplementedError("Homeport migrates forward; restore a backup to go back")
