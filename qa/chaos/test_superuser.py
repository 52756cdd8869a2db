"""The superuser's connections have deadlines: in the server for statements and locks, and in the client for silence."""

import time

import psycopg2
import pytest

from qa.chaos.superuser import superuser


def test_the_server_ends_statements_locks_and_idle_transactions(servers):
    with superuser(servers.postgres, "orders", seconds=20) as connection, connection.cursor() as cursor:
        settings = {}
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            cursor.execute(f"SHOW {name}")
            settings[name] = cursor.fetchone()[0]
    assert settings == {
        "statement_timeout": "10s",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "20s",
    }


def test_a_server_that_says_nothing_ends_the_wait_of_the_client(servers):
    began = time.monotonic()
    with (
        pytest.raises(psycopg2.OperationalError),
        superuser(servers.postgres, seconds=0.3) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT pg_sleep(9)")
    assert time.monotonic() - began < 8.0
