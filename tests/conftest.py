"""Real servers for every test that needs one: started privately, once a run, migrated, and stopped at the end."""

import os
from pathlib import Path

import pytest
from nameko.cli.utils import setup_config

from deploy import keys, migrate
from deploy.local.process import StartError
from deploy.local.servers import Servers, remove_data
from tests.support import Bus, Caller

ROOT = Path(__file__).parent.parent
FAST_RETRIES = "[50, 100, 200]"
ALL_RETRIES = "[50, 100, 200, 400, 800, 1600, 3200]"


def pytest_collection_modifyitems(items):
    """Run the quick tests first, and last those whose processes listen on the same queues as the others' containers."""
    order = ("unit", "support", "bench", "remedies", "model", "service", "e2e", "chaos")
    items.sort(key=lambda item: order.index(item.path.relative_to(ROOT).parts[1]))


@pytest.fixture(scope="session")
def servers():
    """Private RabbitMQ, PostgreSQL and Redis; `servers.environment` holds their addresses."""
    folder = ROOT / os.environ.get("ORDER_SUITE_TEST_DATA", "var/test")
    remove_data(folder)  # every run begins from nothing, migrations included
    servers = Servers(folder)
    os.environ["RETRY_DELAYS_MS"] = ALL_RETRIES  # for the broker's definitions
    try:
        environment = servers.start()
    except StartError as error:  # once, and not from each of the tests that need them
        pytest.exit(f"the tests need real servers: {error}", returncode=2)
    private, public = ROOT / "var/test-keys/jwt-private.pem", ROOT / "var/test-keys/jwt-public.pem"
    keys.ensure(private, public)
    environment |= {
        "JWT_PRIVATE_KEY_FILE": str(private),
        "JWT_PUBLIC_KEY_FILE": str(public),
        "RETRY_DELAYS_MS": FAST_RETRIES,
    }
    servers.environment = environment
    # Those for the processes of a suite. In this one services may do everything: many are toys with borrowed names.
    os.environ.update(environment)
    for name in [name for name in os.environ if name.endswith(("_AMQP_URI", "_REDIS_URL"))]:
        del os.environ[name]
    with (ROOT / "config.yml").open("rb") as file:
        setup_config(file)
    migrate.migrate()  # reads the settings too: before the next line
    os.environ["RETRY_DELAYS_MS"] = ALL_RETRIES  # again: a broker that is restarted has its definitions made anew
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def environment(servers):
    """The variables under which a service finds the servers."""
    return servers.environment


@pytest.fixture
def caller(servers):
    """RPC, as a person at `nameko shell` would use it."""
    return Caller()


@pytest.fixture
def bus(servers):
    """The events exchange."""
    bus = Bus()
    yield bus
    bus.close()
