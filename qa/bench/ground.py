"""Where all yardsticks run: private RabbitMQ, PostgreSQL and Redis in one folder, the same servers for all of them.

Each yardstick has databases of its own there, made by the suite's migrations, so that all write the same tables with
the same indexes and one query tells what is settled.
"""

import contextlib
import copy
import os
import socket
import subprocess
import sys
from pathlib import Path

import psycopg2

from deploy import migrate
from deploy.accounts import database_variable
from deploy.databases import Database
from deploy.local import postgres
from deploy.local.postgres import SUPERUSER
from deploy.local.servers import Servers, remove_data
from deploy.local.suite import ROOT
from qa.support.consistency import DATABASES
from qa.support.own_suite import set_up

# A row's transaction then knows when it was committed, which is what "settled" is measured by.
TRACK_COMMITS = {"track_commit_timestamp": "on"}
READY_SECONDS = 30.0
# The bench starts processes that import what it imports; eventlet's announcement of its end is not for them.
QUIET = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}


def dsn(url):
    """A SQLAlchemy address as libpq wants it."""
    return url.replace("+psycopg2", "")


def name_in(url):
    """The database that an address leads to."""
    return url.rpartition("/")[2]


def free_port():
    """A port that nobody has at this moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Ground:
    """The servers, and what must exist before the first process of a yardstick starts."""

    def __init__(self, folder):
        self.folder = folder
        self.servers = Servers(folder, environ={})
        self.environment = {}

    @property
    def amqp_uri(self):
        """The administrator's address of the broker."""
        return self.environment["AMQP_URI"]

    @property
    def database_urls(self):
        """The addresses of the suite's own databases, by service."""
        return {service: self.environment[database_variable(service)] for service in DATABASES}

    def start(self):
        """Start the servers on no data, and make the suite's tables."""
        postgres.SETTINGS.update(TRACK_COMMITS)
        remove_data(self.servers.root)
        self.environment = set_up(self.folder, self.servers.start())
        migrate.migrate(say=lambda _line: None)

    def stop(self):
        """Stop the servers, and delete what they hold: gigabytes after an hour or two, and worth nothing."""
        self.servers.stop()
        remove_data(self.servers.root)

    def drop_databases(self, urls):
        """Delete databases that `databases_for` made, and whatever is in them."""
        for url in urls.values():
            self._as_superuser(f"DROP DATABASE {name_in(url)} WITH (FORCE)")

    def databases_for(self, yardstick, services):
        """Make databases with the suite's tables for a yardstick; returns their addresses by service."""
        urls = {}
        for service in services:
            name = f"{yardstick}_{service}"
            with contextlib.suppress(psycopg2.errors.DuplicateDatabase):
                self._as_superuser(f"CREATE DATABASE {name} OWNER {service}")
            urls[service] = self.database_urls[service].rpartition("/")[0] + f"/{name}"
            migrate.upgrade(Database(service, urls[service], urls[service]))
        return urls

    def with_databases(self, urls):
        """The same servers, for a suite that uses these databases, by service."""
        other = copy.copy(self)
        other.environment = self.environment | {database_variable(service): url for service, url in urls.items()}
        return other

    def superuser(self, database="postgres"):
        """A connection of the one who may do everything; each statement is a transaction."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.servers.postgres.port,
            dbname=database,
            user=SUPERUSER,
            password=(self.servers.postgres.home / "superuser-password").read_text(),
        )
        connection.autocommit = True
        return connection

    def _as_superuser(self, statement):
        with contextlib.closing(self.superuser()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def spawn(self, *command, log, environment=None, python=sys.executable, stdout=None):
        """Start `python <command>` of a yardstick in the project's folder."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            return subprocess.Popen(
                [str(python), *command],
                cwd=ROOT,
                env={**os.environ, **QUIET, **self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout or errors,
                stderr=errors,
                text=True,
            )


@contextlib.contextmanager
def ground(folder: Path):
    """The servers, up for the block."""
    made = Ground(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def end(processes, seconds=10.0):
    """End processes that the bench has started: ask, wait, insist."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
