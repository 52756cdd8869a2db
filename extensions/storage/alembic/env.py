"""The Alembic environment of all services; deploy/migrate.py says whose migrations run."""

from importlib import import_module

from alembic import context

from extensions.storage.migrations import run_migrations

service = context.config.attributes["service"]
run_migrations(context, import_module(f"{service}.models").Base.metadata)
