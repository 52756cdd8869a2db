"""Connections of the faults to PostgreSQL: as superuser, without the proxies, and with deadlines of their own.

A server that is frozen or gone sends nothing, and its kernel still acknowledges what it gets. So the client shuts its
socket down at the end of `seconds`, and whatever waits there raises psycopg2.OperationalError.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg2

from deploy.local.postgres import SUPERUSER

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 10
LOCK_SECONDS = 3


@contextmanager
def superuser(
    postgres, database: str = "postgres", seconds: float = 60.0
) -> Iterator["psycopg2.extensions.connection"]:
    """A connection in autocommit mode, for `seconds` at most. The server ends a transaction that is idle so long."""
    deadlines = {
        "statement_timeout": STATEMENT_SECONDS,
        "lock_timeout": LOCK_SECONDS,
        "idle_in_transaction_session_timeout": seconds,
    }
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=postgres.port,
        dbname=database,
        user=SUPERUSER,
        password=(postgres.home / "superuser-password").read_text(),
        connect_timeout=CONNECT_SECONDS,
        options=" ".join(f"-c {name}={1000 * value:.0f}" for name, value in deadlines.items()),
    )
    connection.autocommit = True
    with socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same_socket:
        watchdog = threading.Timer(seconds, _shut_down, [same_socket])
        watchdog.daemon = True
        watchdog.start()
        try:
            yield connection
        finally:
            watchdog.cancel()
            connection.close()


def _shut_down(connected):
    with suppress(OSError):  # it has just been closed
        connected.shutdown(socket.SHUT_RDWR)
