"""What the Alembic environments of all services share."""

import os
from typing import Any

from sqlalchemy import MetaData, create_engine, pool, text

from extensions.tables import service_metadata

MIGRATION_LOCK = 7_305_511  # any number, the same for every migrating process


def run_migrations(context: Any, metadata: MetaData, service: str) -> None:
    """Bring the database of `service` up to date; of several processes that try at once, one does it.

    The address is `config.attributes["url"]`, or <SERVICE>_DATABASE_URL, or that of `make run`'s defaults.
    """
    url = context.config.attributes.get("url") or os.environ.get(
        f"{service.upper()}_DATABASE_URL", f"postgresql+psycopg2://{service}:{service}@127.0.0.1:5432/{service}"
    )
    engine = create_engine(url, poolclass=pool.NullPool, connect_args={"connect_timeout": 5})
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        context.configure(connection=connection, target_metadata=metadata, compare_type=True)
        with context.begin_transaction():
            context.run_migrations()


def create_messaging_tables(op: Any) -> None:
    """Create outbox, inbox, dead letters and idempotency keys, in the first revision of every service."""
    service_metadata().create_all(op.get_bind())


def drop_messaging_tables(op: Any) -> None:
    """Undo create_messaging_tables."""
    service_metadata().drop_all(op.get_bind())
