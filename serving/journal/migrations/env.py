"""Alembic's way in: runs the versions on the connection that `serving.journal.migrate` hands over."""

from alembic import context

from serving.journal.migrate import VERSION_TABLE
from serving.journal.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
