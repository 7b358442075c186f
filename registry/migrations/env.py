"""Runs the revisions on the connection that `registry.schema` opened; alembic loads this file, nobody imports it."""

from alembic import context

from registry.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
