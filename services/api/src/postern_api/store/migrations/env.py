"""Alembic's environment: always on the connection, and in the transaction, of whoever starts the upgrade."""

from alembic import context

from postern_api.store.models import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
