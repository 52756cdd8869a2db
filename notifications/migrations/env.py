"""What Alembic runs for notifications's database."""

from alembic import context

from extensions.storage.migrations import run_migrations
from notifications.models import Base

run_migrations(context, Base.metadata, "notifications")
