"""Each service in a real Nameko container, against real servers; every test begins with empty tables and queues."""

import pytest
import redis
from nameko import config
from nameko.containers import ServiceContainer
from nameko.testing.services import replace_dependencies

from tests.support import FakeServices, empty_database, purge_queues


@pytest.fixture
def run_service(servers):
    """Start service classes in this process: `run_service(OrdersService, services=fake)` replaces dependencies.

    A fake is called with the arguments as they travel: see FakeServices.

    Returns the container. Everything is stopped after the test.
    """
    containers = []

    def run(service_class, **replacements):
        if service_class.name != "gateway" and all(c.service_name != service_class.name for c in containers):
            prepare(service_class.name)
        container = ServiceContainer(service_class)
        if "services" in replacements:
            replacements["services"] = FakeServices(replacements["services"])
        if replacements:
            replace_dependencies(container, **replacements)
        containers.append(container)
        container.start()
        return container

    yield run
    for container in reversed(containers):
        container.stop()


def prepare(service):
    """Empty the database of a service, the cache and all queues."""
    empty_database(service)
    redis.Redis.from_url(config["REDIS_URL"]).flushdb()
    purge_queues()
