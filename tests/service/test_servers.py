"""The private servers of `make run` restart after any of their processes was killed."""

import os
import signal

import psycopg2

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
