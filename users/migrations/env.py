"""Alembic's way to the tables of users."""

from alembic import context

from extensions.storage.migrations import run_migrations
from users.models import Base

run_migrations(context, Base.metadata, "users")
