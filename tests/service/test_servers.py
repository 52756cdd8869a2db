"""The private servers of `make run` restart after any of their processes was killed, and let only their users in."""

import json
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import amqp
import psycopg2
import pytest
import redis

from deploy.local.process import started_at


def connect(servers):
    return psycopg2.connect(servers.postgres.administrator_url().replace("+psycopg2", ""))


def test_postgresql_restarts_while_one_of_its_old_processes_still_runs(servers):
    connection = connect(servers)
    orphan = connection.info.backend_pid
    # Like a backend that waits for a lock of a killed holder, this one does not notice the end of the main process.
    os.kill(orphan, signal.SIGSTOP)
    os.kill(servers.postgres.pid, signal.SIGKILL)
    servers.postgres.process.wait()
    try:
        servers.postgres.start()
        assert started_at(orphan) is None
    finally:
        connection.close()
        if started_at(orphan):
            os.kill(orphan, signal.SIGKILL)
            servers.postgres.start()
    with connect(servers) as again, again.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    again.close()


def test_passwords_are_random_and_readable_by_their_owner_only(servers):
    file = servers.data / "passwords.json"
    assert file.stat().st_mode & 0o777 == 0o600
    passwords = json.loads(file.read_text())
    assert len(set(passwords.values())) == len(passwords)
    assert min(map(len, passwords.values())) >= 32
    for server in ("rabbitmq", "redis", "postgres"):
        assert getattr(servers, server).home.stat().st_mode & 0o007 in (0, 0o005), server


def test_no_server_takes_a_login_without_its_password(servers):
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=servers.redis.port, socket_timeout=10).ping()
    for user in ("guest", "orders", "operator"):
        connection = amqp.Connection(f"127.0.0.1:{servers.rabbitmq.port}", userid=user, password=user)
        with pytest.raises((amqp.AccessRefused, OSError)):
            connection.connect()
    for role in ("postgres", "orders", "orders_owner"):
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(host="127.0.0.1", port=servers.postgres.port, user=role, password=role, dbname="orders")
    assert urlsplit(servers.environment["ORDERS_DATABASE_URL"]).password != "orders"


@pytest.mark.skipif(os.geteuid() != 0, reason="without root the servers have the user of this process")
def test_no_server_runs_as_root(servers):
    pids = [servers.rabbitmq.pid, servers.rabbitmq._epmd.pid, servers.redis.pid, servers.postgres.pid]
    assert 0 not in {Path(f"/proc/{pid}").stat().st_uid for pid in pids}
    for server in (servers.rabbitmq, servers.redis):
        assert server.home.stat().st_uid == 0  # so that root can write into it
