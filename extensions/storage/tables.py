"""The tables that every service with a database has: outbox, inbox, dead letters, idempotency keys, timers, and what
the event log lacks.

They are Core tables because they are written and read in bulk only.

A table's `info` states the privileges of the service's role. Row locks need UPDATE; so do deletions in batches, which
lock the rows first.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    false,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

from extensions.storage.collations import KEY_COLLATION

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# Values for a table's `info`. The default is SELECT, INSERT and UPDATE.
APPEND_ONLY = {"privileges": ("SELECT", "INSERT")}
DELETABLE = {"privileges": ("SELECT", "INSERT", "UPDATE", "DELETE")}


def privileges(table: Table) -> tuple[str, ...]:
    """Return the privileges of the service's role on this table."""
    allowed: tuple[str, ...] = table.info.get("privileges", ("SELECT", "INSERT", "UPDATE"))
    return allowed


def service_metadata() -> MetaData:
    """Return the metadata for one service's Base; it contains the messaging tables."""
    metadata = MetaData(naming_convention=NAMING)
    _outbox(metadata)
    _inbox(metadata)
    _dead_letters(metadata)
    _idempotency_keys(metadata)
    _timers(metadata)
    _unlogged_events(metadata)
    return metadata


def _now() -> Column:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


def _outbox(metadata: MetaData) -> None:
    """Events stored in the transaction that caused them, until the broker has confirmed them."""
    table = Table(
        "outbox",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("message_id", Uuid, nullable=False, unique=True),
        Column("event_type", Text, nullable=False),
        Column("body", Text, nullable=False),
        Column("correlation_id", Text, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("due_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        Column("last_error", Text),
        _now(),
        info=DELETABLE,
    )
    Index(None, table.c.due_at)
    Index("ix_outbox_refused", table.c.message_id, postgresql_where=table.c.attempts > 0)


def _inbox(metadata: MetaData) -> None:
    """Messages that a handler has handled: a second delivery changes nothing."""
    table = Table(
        "inbox",
        metadata,
        Column("message_id", Uuid, primary_key=True),
        Column("handler", Text(collation=KEY_COLLATION), primary_key=True),
        _now(),
        info=DELETABLE,
    )
    Index(None, table.c.created_at)


def _dead_letters(metadata: MetaData) -> None:
    """Messages that could not be handled, with the reason, until someone replays them."""
    Table(
        "dead_letters",
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("queue", Text, nullable=False),
        Column("event_type", Text),
        Column("message_id", Text),
        Column("correlation_id", Text),
        Column("body", Text, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("error", Text, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("replayed_at", DateTime(timezone=True)),
        Column("replayed_by", Text),
        Column("is_forged", Boolean, nullable=False, server_default=false()),
        _now(),
        info=DELETABLE,
    )


def _idempotency_keys(metadata: MetaData) -> None:
    """Stored results of calls with an idempotency key; a repeated call gets the stored result."""
    table = Table(
        "idempotency_keys",
        metadata,
        Column("actor", Text(collation=KEY_COLLATION), primary_key=True),
        Column("method", Text(collation=KEY_COLLATION), primary_key=True),
        Column("key", Text(collation=KEY_COLLATION), primary_key=True),
        Column("fingerprint", Text, nullable=False),
        Column("answer", JSONB, nullable=False),
        _now(),
        info=DELETABLE,
    )
    Index(None, table.c.created_at)


def _timers(metadata: MetaData) -> None:
    """The due time of each timer, shared by all instances of the service."""
    Table(
        "timers",
        metadata,
        Column("name", Text(collation=KEY_COLLATION), primary_key=True),
        Column("due_at", DateTime(timezone=True), nullable=False),
    )


def _unlogged_events(metadata: MetaData) -> None:
    """Pieces of the event log that wait to be written (unlogged_events.py)."""
    Table(
        "unlogged_events",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("body", Text, nullable=False),
        _now(),
        info=DELETABLE,
    )
