"""Alembic's way to the tables of catalog."""

from alembic import context

from catalog.models import Base
from extensions.storage.migrations import run_migrations

run_migrations(context, Base.metadata, "catalog")
