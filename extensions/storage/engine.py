"""Connections to PostgreSQL: every wait has a deadline, and errors are classified."""

import json
import time
from typing import Any

import psycopg2.extensions
from eventlet import patcher
from eventlet.hubs import trampoline
from nameko import config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from contracts.errors import ServiceUnavailable, UpstreamTimeout
from extensions.storage.connection import Connection
from extensions.storage.response_timeout import response_timeout_or

_select: Any = patcher.original("select")  # eventlet has no poll
_Poll, _POLLIN = _select.poll, _select.POLLIN

CONNECT_TIMEOUT_SECONDS = 5
# Longer than statement_timeout. TCP timeouts do not cover this case: the kernel of the peer acknowledges, but its
# process does not respond. `response_timeout` overrides it for one greenlet.
RESPONSE_TIMEOUT_SECONDS = 15
POOL_TIMEOUT_SECONDS = 3
SESSION_SETTINGS = {
    "statement_timeout": "10s",
    # Twice this must be less than statement_timeout: the second transaction that waits for a row waits first for its
    # place in the queue and then for the row. A LockTimeout is repeated without a limit, a statement timeout is not.
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
# A statement timeout (57014) is the fault of the message.
OUTAGE_STATES = ("57P", "53", "08", "25006", LOCK_NOT_AVAILABLE)


class DatabaseUnavailable(ServiceUnavailable):
    """PostgreSQL cannot be reached or cannot serve now; nothing was changed."""

    code, status, detail = "SERVICE_UNAVAILABLE", 503, "A database is unavailable. Try again shortly."


class LockTimeout(DatabaseUnavailable):
    """Another transaction held a row for longer than lock_timeout. Transactions on other rows can succeed.

    Like an outage it is repeated without a limit (is_outage). But it is no general outage: work on other rows goes on.
    """

    detail = "Something that this needs is locked now. Nothing was changed. Try again shortly."


class CommitUnknown(UpstreamTimeout):
    """The connection was lost during the commit; whether the commit took place is unknown."""

    detail = "The connection to the database was lost during the commit; whether it took place is unknown."


def is_outage(error: BaseException) -> bool:
    """Tell whether `error` was caused by the infrastructure and not by the message: retry without a limit."""
    if isinstance(error, ServiceUnavailable | CommitUnknown | PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate(error)
    if state in (SERIALIZATION_FAILURE, DEADLOCK_DETECTED) or state.startswith(OUTAGE_STATES):
        return True
    return not state and (error.connection_invalidated or isinstance(error, OperationalError | InterfaceError))


def is_general_outage(error: BaseException) -> bool:
    """Tell whether `error` is an outage that concerns everything, and not only what needs a locked row."""
    return is_outage(error) and not isinstance(error, LockTimeout)


def is_statement_timeout(error: BaseException) -> bool:
    """Tell whether PostgreSQL cancelled a statement at its timeout. It is not an outage, but a caller may retry."""
    return isinstance(error, DBAPIError) and sqlstate(error) == QUERY_CANCELED


def sqlstate(error: DBAPIError) -> str:
    """Return the SQLSTATE of an error, "" if it does not come from PostgreSQL itself."""
    return getattr(error.orig, "pgcode", None) or ""


def bound_every_wait() -> None:
    """Give every wait of psycopg2 for PostgreSQL a deadline, in this process."""
    psycopg2.extensions.set_wait_callback(_wait)


def _wait(connection: Any) -> None:
    """Eventlet's own wait callback, with a deadline; psycopg2 closes a connection whose wait has failed.

    libpq's connect_timeout does not apply when a wait callback does the waiting.
    """
    is_open = connection.status != psycopg2.extensions.STATUS_SETUP
    seconds = response_timeout_or(RESPONSE_TIMEOUT_SECONDS) if is_open else CONNECT_TIMEOUT_SECONDS
    no_response = psycopg2.OperationalError(f"PostgreSQL did not respond for {seconds} s")
    deadline = time.monotonic() + seconds
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        trampoline(
            connection.fileno(),
            read=state == psycopg2.extensions.POLL_READ,
            write=state == psycopg2.extensions.POLL_WRITE,
            timeout=max(0, deadline - time.monotonic()),
            timeout_exc=no_response,
        )


def make_engine(url: str) -> Engine:
    """Return an engine with a bounded pool, bounded statements and bounded waits."""
    pool = int(config.get("DATABASE_POOL", 10))
    options = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    engine = create_engine(
        url,
        pool_size=pool,
        max_overflow=pool,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        # Errors are logged, and bound values may be password hashes or addresses.
        hide_parameters=True,
        # A JSONB column may have to store any value that a broken message contained.
        json_serializer=lambda value: json.dumps(value, default=str),
        connect_args={
            "connection_factory": Connection,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "options": options,
            **TCP_SETTINGS,
        },
    )
    event.listen(engine, "checkout", _check_liveness)
    return engine


def _check_liveness(connection: Any, _record: Any, _proxy: Any) -> None:
    """Check a connection only if PostgreSQL has sent something since its last use, or if the connection has ended.

    PostgreSQL sends nothing to an idle client until it ends the connection. If its machine is lost, keepalives end the
    connection. So no round trip is needed: the kernel knows.
    """
    idle = _Poll()
    idle.register(connection.fileno(), _POLLIN)
    if not idle.poll(0):
        return
    try:
        connection.begins = False
        with connection.cursor() as cursor:
            cursor.execute("SELECT")
        connection.begins = True
    except psycopg2.Error as error:
        raise InvalidatePoolError from error  # the pool replaces this connection and all older ones
