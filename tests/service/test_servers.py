"""The private servers of `make run` come back, whatever was killed of them."""

import os
import signal

import psycopg2

from deploy.local.process import started_at


def connect(servers):
    return psycopg2.connect(servers.postgres.administrator_url().replace("+psycopg2", ""))


def test_postgresql_starts_again_though_one_of_its_processes_has_outlived_it(servers):
    connection = connect(servers)
    orphan = connection.info.backend_pid
    # It stands for one that waits for a lock whose holder was killed: neither notices that the main process is gone.
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
