from alembic import context

from extensions.storage.migrations import run_migrations
from orders.models import Base

run_migrations(context, Base.metadata, "orders")
