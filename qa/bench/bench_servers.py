"""The servers of a benchmark: private RabbitMQ, PostgreSQL and Redis, the same for all candidates.

Each candidate has its own databases, created by the suite's migrations. So all write the same tables with the same
indexes, and the same query finds settled orders.
"""

import contextlib
import copy
import os
import subprocess
import sys
from pathlib import Path

import psycopg2

from contracts.services import SERVICES
from deploy import migrate
from deploy.databases import Database
from deploy.local import postgres
from deploy.local.postgres import SUPERUSER
from deploy.local.servers import Servers, remove_data
from deploy.local.suite import ROOT
from extensions.runtime.addresses import database_variable
from qa.support.own_suite import set_up

# PostgreSQL then records the commit time of each row's transaction, from which settling times are computed.
TRACK_COMMITS = {"track_commit_timestamp": "on"}
READY_SECONDS = 30.0
# For processes that the benchmark starts: its import path, and no deprecation warning of eventlet.
QUIET = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}


def dsn(url):
    """Convert a SQLAlchemy URL to a libpq one."""
    return url.replace("+psycopg2", "")


def name_in(url):
    """The name of the database in a URL."""
    return url.rpartition("/")[2]


class BenchServers:
    """The servers, and the databases and settings of the candidates."""

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
        return {service: self.environment[database_variable(service)] for service in SERVICES}

    def start(self):
        """Start the servers without data, and create the suite's tables."""
        postgres.SETTINGS.update(TRACK_COMMITS)
        remove_data(self.servers.root)
        self.environment = set_up(self.folder, self.servers.start())
        migrate.migrate(say=lambda _line: None)

    def stop(self):
        """Stop the servers, and delete their data: gigabytes after a long run."""
        self.servers.stop()
        remove_data(self.servers.root)

    def drop_databases(self, urls):
        """Drop databases that `databases_for` created."""
        for url in urls.values():
            self._as_superuser(f"DROP DATABASE {name_in(url)} WITH (FORCE)")

    def databases_for(self, candidate, services):
        """Create databases with the suite's tables for a candidate; returns their URLs by service."""
        urls = {}
        for service in services:
            name = f"{candidate}_{service}"
            with contextlib.suppress(psycopg2.errors.DuplicateDatabase):
                self._as_superuser(f"CREATE DATABASE {name} OWNER {service}")
            urls[service] = self.database_urls[service].rpartition("/")[0] + f"/{name}"
            migrate.upgrade(Database(service, urls[service], urls[service]))
        return urls

    def with_databases(self, urls):
        """Return a copy with the same servers, in which the suite uses these databases (by service)."""
        other = copy.copy(self)
        other.environment = self.environment | {database_variable(service): url for service, url in urls.items()}
        return other

    def superuser(self, database="postgres"):
        """A superuser's connection, with autocommit."""
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
        """Start `python <command>` in the project's folder."""
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
def running_servers(folder: Path):
    """Start the servers for the duration of the block."""
    made = BenchServers(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def end(processes, seconds=10.0):
    """End processes: SIGTERM, and SIGKILL after `seconds`."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
