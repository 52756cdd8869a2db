"""Functions shared by the Alembic environments of all services."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, MetaData, create_engine, make_url, pool, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError

from extensions.runtime.backoff import Backoff
from extensions.storage.collations import DEFAULT_COLLATION, set_collation
from extensions.storage.tables import privileges

log = logging.getLogger(__name__)

Step = Callable[[Any], None]
"""A part of a revision. Its argument is Alembic's module `op`."""

MIGRATION_LOCK = 7_305_511  # an arbitrary number, the same for all processes
# How long a migration waits for a lock, and for the migration of another process.
LOCK_TIMEOUT, OTHERS_TIMEOUT = "2s", "10min"
# About a minute in all. Between the tries, the statements that queued behind the migration are executed.
TRIES, PAUSES_SECONDS = 10, (1.0, 8.0)
SET_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', :value, true)")
LOCKED_TABLES = text(
    "SELECT relname AS table, pid, usename, mode FROM pg_locks"
    " JOIN pg_class ON pg_class.oid = relation AND relkind = 'r'"
    " JOIN pg_namespace ON pg_namespace.oid = relnamespace AND nspname = 'public'"
    " JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()"
    " AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " ORDER BY relname, pid"
)
GRANTED_PRIVILEGES = text(
    "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
    " WHERE table_schema = 'public' AND grantee = :role"
)


SESSIONS = text(
    "SELECT count(*), coalesce(string_agg(DISTINCT host(client_addr), ', '), '') FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = :role"
)


class StillRunning(Exception):
    """Processes of a version that cannot run beside this one are connected; the text says how many, and what to do."""


class TablesLocked(Exception):
    """The migrations did not get a lock in time; the text says on which tables, and who has them locked."""


def run_migrations(context: Any, metadata: MetaData) -> None:
    """Apply the pending migrations of one service; an advisory lock lets one process at a time do it.

    They run as the owner of the database. Afterwards the role of the service gets its privileges on the tables.

    Every statement of the service on a table queues behind a migration that waits for a lock on it. So a migration
    waits only LOCK_TIMEOUT, and is tried again after pauses. Raises TablesLocked after the last try.
    """
    owner_url, url = context.config.attributes["addresses"]
    engine = create_engine(owner_url, poolclass=pool.NullPool, connect_args={"connect_timeout": 5})
    backoff = Backoff(*PAUSES_SECONDS)
    for tries_left in reversed(range(TRIES)):
        try:
            _migrate(engine, context, metadata, owner_url, url)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            with engine.connect() as connection:
                blocked = _explain(connection, error)
            if not tries_left:
                raise TablesLocked(f"{blocked}. Gave up after {TRIES} tries; nothing was changed") from error
            pause = backoff.next_pause()
            log.warning("%s; next try in %.1f s", blocked, pause)
            time.sleep(pause)
        else:
            return


def require_stopped(op: Any, reason: str) -> None:
    """Raise StillRunning while processes of the service are connected. For a revision that must not run beside them.

    They are recognised by the role of the service. If the service is the owner of its tables, nothing is known.
    """
    owner_url, url = op.get_context().config.attributes["addresses"]
    role = make_url(url).username
    if role == make_url(owner_url).username:
        return
    number, addresses = op.get_bind().execute(SESSIONS, {"role": role}).one()
    if number:
        where = f" from {addresses}" if addresses else ""
        raise StillRunning(f"stop all its processes, then migrate again: {reason} ({number} sessions of {role}{where})")


def _migrate(engine: Engine, context: Any, metadata: MetaData, owner_url: str, url: str) -> None:
    """Migrate in one transaction: where it fails, nothing was changed."""
    with engine.begin() as connection:
        connection.execute(SET_LOCK_TIMEOUT, {"value": OTHERS_TIMEOUT})
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.execute(SET_LOCK_TIMEOUT, {"value": LOCK_TIMEOUT})
        context.configure(connection=connection, target_metadata=metadata, compare_type=True)
        with context.begin_transaction():
            context.run_migrations()
        role = make_url(url).username
        if role and role != make_url(owner_url).username:
            grant(connection, metadata, role)


def _explain(connection: Connection, error: OperationalError) -> str:
    """Return in words which tables other sessions have locked: those that the statement names, or else all."""
    rows = list(connection.execute(LOCKED_TABLES))
    named = [row for row in rows if re.search(rf"\b{re.escape(row.table)}\b", error.statement or "")]
    held = [f"{row.table} by the session {row.pid} of {row.usename} ({row.mode})" for row in named or rows]
    statement = " ".join((error.statement or "").split())[:200]
    return f"a migration waits for a lock: {'; '.join(held) or 'no longer held by any session'}; statement: {statement}"


def grant(connection: Connection, metadata: MetaData, role: str) -> None:
    """Give `role` exactly the privileges that extensions/storage/tables.py states for each table."""
    existing = set(sa.inspect(connection).get_table_names())
    tables = [table for table in metadata.sorted_tables if table.name in existing]
    wanted = {(table.name, privilege) for table in tables for privilege in privileges(table)}
    held = {(table, privilege) for table, privilege in connection.execute(GRANTED_PRIVILEGES, {"role": role})}
    quote = connection.dialect.identifier_preparer.quote
    connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {quote(role)}"))
    for table, privilege in sorted(wanted - held):
        connection.execute(text(f"GRANT {privilege} ON {quote(table)} TO {quote(role)}"))
    for table, privilege in sorted(held - wanted):
        connection.execute(text(f"REVOKE {privilege} ON {quote(table)} FROM {quote(role)}"))


def create_service_tables(op: Any, *, version: int) -> None:
    """Create the tables of every service: those of extensions/storage/tables.py.

    Part of the first revision of a new service. A revision always creates the same: `version` states which of the
    changes in STEPS it includes. A later change is a step at the end of STEPS. It is called by a new revision of each
    service that exists then.
    """
    for create, _drop in _steps(version):
        create(op)


def drop_service_tables(op: Any, *, version: int) -> None:
    """Undo create_service_tables."""
    for _create, drop in reversed(_steps(version)):
        drop(op)


def _steps(version: int) -> Sequence[tuple[Step, Step]]:
    if not 1 <= version <= len(STEPS):
        message = f"version is {version}; the tables of every service have the versions 1 to {len(STEPS)}"
        raise ValueError(message)
    return STEPS[:version]


def create_messaging_tables(op: Any) -> None:
    """Create outbox, inbox, dead letters and idempotency keys in their first form."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("message_id", sa.Uuid, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("correlation_id", sa.Text, nullable=False),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        _now("due_at"),
        _now("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("message_id", name="uq_outbox_message_id"),
    )
    op.create_index("ix_outbox_due_at", "outbox", ["due_at"])
    op.create_table(
        "inbox",
        sa.Column("message_id", sa.Uuid, nullable=False),
        sa.Column("handler", sa.Text, nullable=False),
        _now("created_at"),
        sa.PrimaryKeyConstraint("message_id", "handler", name="pk_inbox"),
    )
    op.create_index("ix_inbox_created_at", "inbox", ["created_at"])
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text),
        sa.Column("message_id", sa.Text),
        sa.Column("correlation_id", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True)),
        _now("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("answer", JSONB, nullable=False),
        _now("created_at"),
        sa.PrimaryKeyConstraint("actor", "method", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def drop_messaging_tables(op: Any) -> None:
    """Undo create_messaging_tables."""
    for table in ("outbox", "inbox", "dead_letters", "idempotency_keys"):
        op.drop_table(table)


def create_timers(op: Any) -> None:
    """Create the timers, and the column for who replayed a dead letter."""
    op.create_table(
        "timers",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_timers"),
    )
    op.add_column("dead_letters", sa.Column("replayed_by", sa.Text))


def add_refusals(op: Any) -> None:
    """Add why the broker did not take an event, and whether a dead letter was forged."""
    op.add_column("outbox", sa.Column("last_error", sa.Text))
    op.create_index("ix_outbox_refused", "outbox", ["message_id"], postgresql_where=sa.text("attempts > 0"))
    forged = sa.Column("is_forged", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("dead_letters", forged)
    op.execute(
        "UPDATE dead_letters SET is_forged = true"
        " WHERE error LIKE 'it was published to % and routed here by its headers'"
        " OR error LIKE 'it was dead-lettered by the queue %'"
    )


def drop_refusals(op: Any) -> None:
    """Undo add_refusals."""
    op.drop_column("dead_letters", "is_forged")
    op.drop_index("ix_outbox_refused", "outbox")
    op.drop_column("outbox", "last_error")


def drop_timers(op: Any) -> None:
    """Undo create_timers."""
    op.drop_column("dead_letters", "replayed_by")
    op.drop_table("timers")


KEYS = {"inbox": ("handler",), "idempotency_keys": ("actor", "method", "key"), "timers": ("name",)}
"""The text columns of unique indexes, by table."""


def state_collations(op: Any) -> None:
    """Give the keys of the messaging tables a collation that does not depend on the database."""
    for table, columns in KEYS.items():
        set_collation(op, table, columns)


def drop_collations(op: Any) -> None:
    """Undo state_collations."""
    for table, columns in KEYS.items():
        set_collation(op, table, columns, DEFAULT_COLLATION)


def create_unlogged_events(op: Any) -> None:
    """Create the table of what the event log lacks."""
    op.create_table(
        "unlogged_events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        _now("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_unlogged_events"),
    )


def drop_unlogged_events(op: Any) -> None:
    """Undo create_unlogged_events."""
    op.drop_table("unlogged_events")


STEPS: tuple[tuple[Step, Step], ...] = (
    (create_messaging_tables, drop_messaging_tables),
    (create_timers, drop_timers),
    (add_refusals, drop_refusals),
    (state_collations, drop_collations),
    (create_unlogged_events, drop_unlogged_events),
)
"""The functions that create and change the tables of every service, each with the one that undoes it."""


def _now(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp())
