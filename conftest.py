"""Fixtures for tests/ and qa/: private servers, started and migrated once for a test run, and stopped at its end."""

import gc
import os
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from nameko.cli.utils import setup_config

from deploy import keys, migrate
from deploy.local.process import StartError
from deploy.local.servers import Servers, remove_data
from qa.support.machine_speed import deadline_factor, deadlines
from tests.support import Bus, Caller

ROOT = Path(__file__).parent
FAST_RETRIES = "[50, 100, 200]"
ALL_RETRIES = "[50, 100, 200, 400, 800, 1600, 3200]"


def pytest_collection_modifyitems(items):
    """Run the longest groups of tests first, so that no worker of tests/run.py has to wait for another at the end.

    This order is also needed in a single process: chaos and the end-to-end tests start a suite, and the containers of
    the service tests, which listen on the same queues, must not be running then.
    """
    order = ("chaos", "e2e", "service", "model", "unit")

    def position(item):
        folder = item.path.relative_to(ROOT).parts[1]
        return order.index(folder) if folder in order else len(order)

    items.sort(key=position)


@pytest.fixture(scope="session")
def servers():
    """Private RabbitMQ, PostgreSQL and Redis; `servers.environment` holds their addresses."""
    folder = ROOT / os.environ.get("ORDER_SUITE_TEST_DATA", "var/test")
    remove_data(folder)  # every run starts with empty servers and runs all migrations
    servers = Servers(folder)
    os.environ["RETRY_DELAYS_MS"] = ALL_RETRIES  # for the broker's definitions
    try:
        environment = servers.start()
    except StartError as error:  # report it once, not for each test
        pytest.exit(f"the tests need real servers: {error}", returncode=2)
    private, public = folder / "keys/jwt-private.pem", folder / "keys/jwt-public.pem"
    keys.ensure(private, public)
    limits = deadlines()
    environment |= limits | {
        "JWT_PRIVATE_KEY_FILE": str(private),
        "JWT_PUBLIC_KEY_FILE": str(public),
        "RETRY_DELAYS_MS": FAST_RETRIES,
        # On a busy machine Redis may take longer than production allows; tests that need it set their own value.
        "REDIS_TIMEOUT_MS": str(1000 * deadline_factor(limits)),
        # A gateway in the process of the tests. The default is a port that all programs of the machine share.
        "GATEWAY_ADDRESS": "127.0.0.1:0",
        # Receivers of webhooks are on this machine.
        "OUTBOUND_ALLOW_LOOPBACK": "yes",
        # It would end the process of the tests.
        "RESTART_STUCK_SECONDS": "0",
    }
    servers.environment = environment
    if servers.postgres:
        _write_without_waiting(servers.postgres)
    # Services in this process connect as administrators, because many tests define services with the name of a
    # real one. The addresses with the services' own users are for the processes of a suite.
    os.environ.update(environment)
    for name in [name for name in os.environ if name.endswith(("_AMQP_URI", "_REDIS_URL"))]:
        del os.environ[name]
    with (ROOT / "config.yml").open("rb") as file:
        setup_config(file)
    try:
        migrate.migrate()  # it reads the settings, so it runs before the next line
    except migrate.MigrationError as error:  # report it once, not for each test
        servers.stop()
        pytest.exit(f"the databases cannot be migrated: {error}", returncode=2)
    os.environ["RETRY_DELAYS_MS"] = ALL_RETRIES  # a restarted broker gets new definitions
    gc.freeze()  # as a service does: garbage collections skip the imported modules
    yield servers
    servers.stop()


def _write_without_waiting(postgres):
    """Turn fsync off. This is safe because tests only kill processes, and the kernel keeps their written data."""
    with closing(psycopg2.connect(postgres.administrator_url().replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET fsync = off")
            cursor.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="session")
def environment(servers):
    """The environment variables with the addresses of the servers."""
    return servers.environment


@pytest.fixture
def caller(servers):
    """An RPC client for all services."""
    return Caller()


@pytest.fixture
def bus(servers):
    """The events exchange."""
    bus = Bus()
    yield bus
    bus.close()
