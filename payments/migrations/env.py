"""What Alembic runs for payments's database."""

from alembic import context

from extensions.storage.migrations import run_migrations
from payments.models import Base

run_migrations(context, Base.metadata, "payments")
