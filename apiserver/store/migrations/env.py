"""Alembic's entry: the store gives its own connection, inside its own transaction."""

from alembic import context

from apiserver.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
)
context.run_migrations()
