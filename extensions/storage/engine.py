"""The way to PostgreSQL: every wait for it has an end, and what its errors mean."""

import json
import time
from typing import Any

import psycopg2.extensions
from eventlet.hubs import trampoline
from nameko import config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from contracts.errors import ServiceUnavailable, UpstreamTimeout
from extensions.storage.response_timeout import response_timeout_or

CONNECT_TIMEOUT_SECONDS = 5
# Longer than a statement may take, where its greenlet has no more patience. A peer whose kernel acknowledges and whose
# process says nothing keeps TCP content.
UNANSWERED_SECONDS = 15
POOL_TIMEOUT_SECONDS = 3
# A connection that was used so shortly ago is taken to live still.
RESTED_SECONDS = 1.0
SESSION_SETTINGS = {
    "statement_timeout": "10s",
    # Twice that must be less: who is not the first to want a row waits for its turn, and then for the row. A lock that
    # is held for too long is an outage, a statement that takes too long is not.
    "lock_timeout": "4s",
    "idle_in_transaction_session_timeout": "30s",
    "timezone": "UTC",
}
TCP_SETTINGS = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
SERIALIZATION_FAILURE, DEADLOCK_DETECTED, QUERY_CANCELED = "40001", "40P01", "57014"
LOCK_NOT_AVAILABLE = "55P03"
# Class 57P: the server shuts down or starts. 53: out of disk, memory or connections. 08: connection. 25006: read-only.
# A statement that takes too long (57014) is the message's own fault.
OUTAGE_STATES = ("57P", "53", "08", "25006", LOCK_NOT_AVAILABLE)


class DatabaseUnavailable(ServiceUnavailable):
    """PostgreSQL cannot be reached or cannot serve now; nothing was done."""

    code, status, detail = "SERVICE_UNAVAILABLE", 503, "A database is unavailable. Try again shortly."


class LockTimeout(DatabaseUnavailable):
    """Somebody has held a row that this transaction needs for too long; what needs other rows can be done."""


class CommitUnknown(UpstreamTimeout):
    """The connection was lost during the commit; whether it took place is unknown."""

    detail = "The database was lost while it answered; whether it acted is unknown."


def is_outage(error: BaseException) -> bool:
    """Tell whether `error` is the infrastructure's fault and not the message's: worth trying again for ever."""
    if isinstance(error, ServiceUnavailable | CommitUnknown | PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate(error)
    if state in (SERIALIZATION_FAILURE, DEADLOCK_DETECTED) or state.startswith(OUTAGE_STATES):
        return True
    return not state and (error.connection_invalidated or isinstance(error, OperationalError | InterfaceError))


def is_statement_timeout(error: BaseException) -> bool:
    """Tell whether PostgreSQL gave a statement up because it took too long: no outage, but whoever waits may retry."""
    return isinstance(error, DBAPIError) and sqlstate(error) == QUERY_CANCELED


def sqlstate(error: DBAPIError) -> str:
    """Return what PostgreSQL calls the error; nothing where it did not come to say."""
    return getattr(error.orig, "pgcode", None) or ""


def bound_every_wait() -> None:
    """Bound every wait of psycopg2 for PostgreSQL, in this process."""
    psycopg2.extensions.set_wait_callback(_wait)


def _wait(connection: Any) -> None:
    """Eventlet's own wait callback, with a deadline; psycopg2 closes a connection whose wait has failed.

    libpq's connect_timeout does not hold where somebody else does the waiting.
    """
    is_open = connection.status != psycopg2.extensions.STATUS_SETUP
    seconds = response_timeout_or(UNANSWERED_SECONDS) if is_open else CONNECT_TIMEOUT_SECONDS
    silence = psycopg2.OperationalError(f"PostgreSQL said nothing for {seconds} s")
    deadline = time.monotonic() + seconds
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        trampoline(
            connection.fileno(),
            read=state == psycopg2.extensions.POLL_READ,
            write=state == psycopg2.extensions.POLL_WRITE,
            timeout=max(0, deadline - time.monotonic()),
            timeout_exc=silence,
        )


def make_engine(url: str) -> Engine:
    """Return an engine whose every wait is bounded."""
    pool = int(config.get("DATABASE_POOL", 10))
    options = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    engine = create_engine(
        url,
        pool_size=pool,
        max_overflow=pool,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        # Errors go to the log, and what was bound may be a password's hash or an address.
        hide_parameters=True,
        # The JSON of a JSONB column may hold whatever a broken message held.
        json_serializer=lambda value: json.dumps(value, default=str),
        connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS, "options": options, **TCP_SETTINGS},
    )
    for begins_to_rest in ("connect", "checkin"):
        event.listen(engine, begins_to_rest, _note_rest)
    event.listen(engine, "checkout", _ping_after_rest)
    return engine


def _note_rest(_connection: Any, record: Any) -> None:
    record.info["resting_since"] = time.monotonic()


def _ping_after_rest(connection: Any, record: Any, _proxy: Any) -> None:
    """Find out whether a connection that was not used for a while still lives: asking every time costs a round trip."""
    if time.monotonic() - record.info["resting_since"] < RESTED_SECONDS:
        return
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT")
        connection.autocommit = False
    except psycopg2.Error as error:
        raise InvalidatePoolError from error  # this one, and all that are as old: with new ones instead
