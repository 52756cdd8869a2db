"""Each service in a real Nameko container, against real servers; every test begins with empty tables and queues."""

from unittest.mock import Mock

import eventlet
import pytest
import redis
from nameko import config
from nameko.containers import get_container_cls
from nameko.testing.services import replace_dependencies

from contracts.services import PROCESSES
from extensions.messaging import listener, topology
from qa.chaos.proxy import Proxies
from tests.support import FakeServices, empty_database, purge_queues


@pytest.fixture
def run_service(servers, request, monkeypatch):
    """Start service classes in this process: `run_service(OrdersService, services=fake)` replaces dependencies.

    A fake is called with the arguments as they travel: see FakeServices.

    Returns the container, which is of the class that production uses. All are stopped after the test, at the same time.
    """
    containers = []
    # The count of frozen objects walks through all of them, which takes longer than the rest of a start.
    monkeypatch.setattr(listener, "gc", Mock())
    empty_cache_and_queues()
    if request.path.parent.name in PROCESSES:
        # The topology is there since purge_queues(). That a service declares it is proved by the tests of extensions/.
        for declares in ("ensure", "declare_event_queue", "declare_dead_letter_queue"):
            monkeypatch.setattr(topology, declares, lambda *_: None)

    def run(service_class, **replacements):
        if service_class.name != "gateway" and all(c.service_name != service_class.name for c in containers):
            empty_database(service_class.name)
        container = get_container_cls()(service_class)
        if "services" in replacements:
            replacements["services"] = FakeServices(replacements["services"])
        if replacements:
            replace_dependencies(container, **replacements)
        containers.append(container)
        container.start()
        return container

    yield run
    stop_all(containers)


@pytest.fixture
def broker_outage(servers, monkeypatch):
    """`with broker_outage():` the broker cannot be reached by anything that connects after this fixture.

    Connections break and new ones are refused, in a proxy: that takes no time, unlike a restart of RabbitMQ.
    """
    proxies = Proxies()
    uri = proxies.start({"AMQP_URI": config["AMQP_URI"]})["AMQP_URI"]
    monkeypatch.setenv("AMQP_URI", uri)
    with config.patch({"AMQP_URI": uri}):
        yield lambda: proxies.fault(proxies.broker, "refuse")
    proxies.stop()


def stop_all(containers):
    """Stop containers at the same time."""
    stopping = [eventlet.spawn(container.stop) for container in containers]
    for one in stopping:
        one.wait()


def prepare(service):
    """Empty the database of a service, the cache and all queues."""
    empty_database(service)
    empty_cache_and_queues()


def empty_cache_and_queues():
    """Delete what earlier tests left in Redis and RabbitMQ."""
    redis.Redis.from_url(config["REDIS_URL"]).flushdb()
    purge_queues()
