"""Each service in a real Nameko container, against real servers; every test begins with empty tables and queues."""

import json
from unittest.mock import Mock

import eventlet
import pytest
import redis
import sqlalchemy
from nameko import config
from nameko.containers import get_container_cls
from nameko.testing.services import replace_dependencies

from contracts.services import PROCESSES
from extensions.messaging import listener, topology
from extensions.messaging.event_handler import EventHandler
from qa.chaos.proxy import Proxies
from tests.support import (
    TEST_TIMEOUT_SECONDS,
    FakeServices,
    are_empty,
    database,
    empty_database,
    eventually,
    purge_queues,
)
from users import providers

# In these modules a service declares the topology at its start, because a test deletes a part of it. In all others
# purge_queues() does that, if it is missing: to declare it takes 0.13 s of a processor at each start.
DECLARING = {"test_forgery", "test_hazards", "test_killers", "test_outbox", "test_permissions", "test_queue_depths"}


@pytest.fixture(scope="module", autouse=True)
def cheap_password_hashes():
    """Hash passwords at a thousandth of the cost. The tests of users override this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(providers, "MEMORY_KIB", 16)
        patch.setattr(providers, "PASSES", 1)
        yield


@pytest.fixture(scope="module", autouse=True)
def fast_retries(servers):
    """Retry after short pauses, also if a tool in this process has read the settings again: they are the broker's."""
    with config.patch({"RETRY_DELAYS_MS": json.loads(servers.environment["RETRY_DELAYS_MS"])}):
        yield


@pytest.fixture(scope="module")
def shared_services(servers, request):
    """Start service classes once for all tests of a module: `shared_services(OrdersService, ...)`.

    Every test begins with empty tables, caches and queues. Only for tests that neither stop nor configure a service.
    """
    purge_queues()
    with pytest.MonkeyPatch.context() as patch:
        _speed_up_starts(patch, request)
        shared = SharedServices()
        yield shared
        stop_all(shared.containers.values())


class SharedServices:
    """Containers that keep running between the tests of a module."""

    def __init__(self):
        self.containers = {}

    def __call__(self, *service_classes):
        """Start the services, or reset what is left of the test before. Returns their containers."""
        if self.containers:
            eventually(self._are_idle)
        for service in service_classes:
            if service.name != "gateway":
                empty_database(service.name)
        empty_cache_and_queues()
        for service in service_classes:
            if service.name not in self.containers:
                container = get_container_cls()(service)
                start(container)
                self.containers[service.name] = container
        return [self.containers[service.name] for service in service_classes]

    def _are_idle(self):
        """Whether no event waits in an outbox, in a queue or in a handler, and no method runs."""
        return not any(map(_has_outbox_rows, self.containers)) and not any(
            _is_busy(container) for container in self.containers.values()
        )


def _has_outbox_rows(service):
    if service == "gateway":
        return False
    with database(service).connect() as connection:
        return connection.execute(sqlalchemy.text("SELECT FROM outbox LIMIT 1")).first() is not None


def _is_busy(container):
    if container._worker_threads:
        return True
    handlers = [one for one in container.extensions if isinstance(one, EventHandler)]
    queues = [queue.queue for handler in handlers for queue in handler._queues]
    return any(handler._waiting or handler._suspects for handler in handlers) or not are_empty(queues)


@pytest.fixture
def run_service(servers, request, monkeypatch):
    """Start service classes in this process: `run_service(OrdersService, services=fake)` replaces dependencies.

    A fake is called with the arguments as they are sent: see FakeServices.

    Returns the container, which is of the class that production uses. All are stopped after the test, at the same time.
    """
    containers = []
    empty_cache_and_queues()
    _speed_up_starts(monkeypatch, request)

    def run(service_class, **replacements):
        if service_class.name != "gateway" and all(c.service_name != service_class.name for c in containers):
            empty_database(service_class.name)
        container = get_container_cls()(service_class)
        if "services" in replacements:
            replacements["services"] = FakeServices(replacements["services"])
        if replacements:
            replace_dependencies(container, **replacements)
        start(container)
        containers.append(container)
        return container

    yield run
    stop_all(containers)


def _speed_up_starts(monkeypatch, request):
    """Skip what takes long and is proved elsewhere. Call it after purge_queues(), which declares the topology."""
    # The count of frozen objects walks through all of them, which takes longer than the rest of a start.
    monkeypatch.setattr(listener, "garbage", Mock())
    if request.path.stem not in DECLARING:
        monkeypatch.setattr(topology, "ensure", lambda *_: None)
    if request.path.parent.name in PROCESSES:
        for declares in ("declare_event_queue", "declare_dead_letter_queue"):
            monkeypatch.setattr(topology, declares, lambda *_: None)


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


def start(container, seconds=TEST_TIMEOUT_SECONDS):
    """Start a container. The test fails with the reason if it has not started after `seconds`.

    In production a service tries without end to connect to the broker and to consume its queues.
    """
    limit = eventlet.Timeout(seconds)
    try:
        container.start()
    except eventlet.Timeout as timeout:
        if timeout is not limit:
            raise
        problem = container.shared_extensions[listener.Listener].problem
        container.kill()
        hint = "is the service among the event's `consumers` in contracts/?" if "no queue" in problem else "see the log"
        pytest.fail(f"{container.service_name} did not start within {seconds} s: it {problem}; {hint}", pytrace=False)
    finally:
        limit.cancel()


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
