"""How Alembic runs Podium's migrations: on the connection and in the transaction that `podium.store.schema` gives."""

from alembic import context

from podium.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # Changes of a table that SQLite has no ALTER for are made by rebuilding it.
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
