"""What Alembic runs for inventory's database."""

from alembic import context

from extensions.storage.migrations import run_migrations
from inventory.models import Base

run_migrations(context, Base.metadata, "inventory")
