"""A service or Redis that does not respond delays only the requests that need it."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import amqp
import eventlet
import httpx
import pytest
from nameko import config

from catalog import search
from catalog.service import CatalogService
from extensions.cache.connection import RedisConnection
from extensions.messaging.topology import RPC_EXCHANGE
from extensions.observability.metrics import Metrics
from extensions.rpc.service_guard import ServiceGuards
from extensions.runtime.circuit_breaker import MIN_FAILURES, State
from gateway import searches
from notifications.service import NotificationsService
from tests.service.gateway.responses import ok
from tests.stopwatch import Stopwatch
from tests.support import connect, eventually
from users.service import UsersService

POLLERS = 100
SEARCHES = searches.MOST + 10
EMPTY = {"items": [], "next_cursor": None}


class Silent:
    """A service that receives calls and does not reply until `reply_to_all`."""

    def __init__(self, service):
        self._queue = f"rpc-{service}"
        self._connection = connect()
        self._channel = self._connection.channel()
        self._channel.queue_delete(self._queue)
        self._channel.queue_declare(self._queue, durable=True, auto_delete=False)
        self._channel.queue_bind(self._queue, RPC_EXCHANGE, f"{service}.*")

    def reply_to_all(self, count):
        """Receive `count` calls and reply with an empty list."""
        while count:
            call = self._channel.basic_get(self._queue, no_ack=True)
            if call is None:
                eventlet.sleep(0.01)
                continue
            body = json.dumps({"result": EMPTY, "error": None})
            reply = amqp.Message(body, correlation_id=call.properties["correlation_id"])
            self._channel.basic_publish(reply, RPC_EXCHANGE, call.properties["reply_to"])
            count -= 1

    def close(self):
        """Delete the queue: the real service declares it with other arguments."""
        if self._connection.connected:
            self._channel.queue_delete(self._queue)
            self._connection.close()


@pytest.fixture
def notifications(servers):
    silent = Silent("notifications")
    yield silent
    silent.close()


@pytest.fixture
def front(gateway, run_service):
    """A function that starts a gateway with users and catalog: `front(RPC_TIMEOUT_SECONDS=1)`."""

    def start(**settings):
        for service in (UsersService, CatalogService):
            run_service(service)
        with config.patch(settings):
            api = gateway()
        eventually(lambda: api.get("/health/ready").status_code == 200)
        return api

    return start


def guard_of(gateway, service):
    return gateway.containers[-1].shared_extensions[ServiceGuards].of(service)


def poll(api, headers, count):
    """Poll from many clients, each on its own connection. Returns the greenlets; each returns a response."""
    client = httpx.Client(base_url=api.base_url, timeout=120, limits=httpx.Limits(max_connections=count), verify=False)
    return [eventlet.spawn(client.get, "/notifications", headers=headers) for _ in range(count)]


def test_pollers_of_a_silent_service_delay_nobody_else(gateway, front, login, notifications):
    api = front(RPC_TIMEOUT_SECONDS=100, HTTP_DEADLINE_SECONDS=100)
    guard = guard_of(gateway, "notifications")
    pollers = poll(api, login("customer"), POLLERS)
    eventually(lambda: guard._bulkhead.in_flight == POLLERS)
    for number in range(10):
        ok(api.get(f"/products?min_price={number}.00"))
        ok(api.get("/health/live"))
    assert guard._bulkhead.in_flight == POLLERS  # all this time they waited
    notifications.reply_to_all(POLLERS)
    assert {poller.wait().status_code for poller in pollers} == {200}  # slowed down, not refused
    assert guard._bulkhead.in_flight == 0


def test_over_the_bound_only_requests_for_the_slow_service_are_refused_at_once(gateway, front, login, notifications):
    bounds = {"RPC_MAX_CALLS_PER_SERVICE": 2, "RPC_MAX_WAITING_PER_SERVICE": 5}
    api = front(RPC_TIMEOUT_SECONDS=100, HTTP_DEADLINE_SECONDS=100, **bounds)
    pollers = poll(api, login("customer"), 20)
    eventually(lambda: sum(poller.dead for poller in pollers) == 15)  # while five wait
    for refused in [poller.wait() for poller in pollers if poller.dead]:
        assert (refused.status_code, refused.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert refused.headers["retry-after"] == "1"
    ok(api.get("/products"))
    assert metrics(gateway)("suite_rpc_calls_in_flight", "notifications") == 5
    assert metrics(gateway)("suite_rpc_calls_refused_total", "notifications", reason="busy") == 15
    notifications.reply_to_all(5)
    assert sorted(poller.wait().status_code for poller in pollers) == [200] * 5 + [503] * 15


def test_a_service_that_was_silent_is_not_called_until_a_probe_is_answered(
    gateway, front, login, notifications, run_service
):
    api = front(RPC_TIMEOUT_SECONDS=1.2)
    headers, guard = login("customer"), guard_of(gateway, "notifications")
    assert {poller.wait().status_code for poller in poll(api, headers, 2 * MIN_FAILURES)} <= {503, 504}
    refused = api.get("/notifications", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "The notifications service has not responded lately" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    ready = api.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["services"]["notifications"] == {"service": "down"}
    seen = metrics(gateway)
    assert seen("suite_rpc_circuit_opened_total", "notifications") == 1
    assert seen("suite_rpc_calls_refused_total", "notifications", reason="open") > 0
    assert seen("suite_rpc_circuit_state", "notifications") > 0
    assert seen("suite_rpc_circuit_state", "catalog") == 0
    notifications.close()
    run_service(NotificationsService)
    eventually(lambda: api.get("/notifications", headers=headers).status_code == 200)
    assert guard._breaker.state is State.CLOSED


def test_many_expensive_searches_delay_no_other_call_of_catalog(gateway, front, monkeypatch):
    door = eventlet.Event()
    monkeypatch.setattr(search, "find_page", lambda *_, **__: door.wait() or ((), None))
    api = front(RPC_TIMEOUT_SECONDS=100, HTTP_DEADLINE_SECONDS=100)
    client = httpx.Client(
        base_url=api.base_url, timeout=120, limits=httpx.Limits(max_connections=SEARCHES), verify=False
    )
    searching = [eventlet.spawn(client.get, f"/products?search=tea{number}") for number in range(SEARCHES)]
    eventually(lambda: sum(one.dead for one in searching) == SEARCHES - searches.MOST)
    refused = [one.wait() for one in searching if one.dead]
    assert {(one.status_code, one.headers["retry-after"]) for one in refused} == {(503, "1")}
    for number in range(10):
        ok(api.get(f"/products?min_price={number}.00"))
    assert searches._searches.in_flight == searches.MOST  # all this time they ran or waited
    door.send()
    assert {one.wait().status_code for one in searching} == {200, 503}
    assert searches._searches.in_flight == 0


def metrics(gateway):
    registry = gateway.containers[-1].shared_extensions[Metrics].registry
    return lambda name, service, **labels: registry.get_sample_value(name, {"service": service, **labels})


def test_a_frozen_redis_costs_a_request_a_fraction_of_a_second_once(gateway, front, login, servers):
    with config.patch({"REDIS_TIMEOUT_MS": 30}):
        api = front()
    made = {"sku": "ISO-1", "name": "Thing", "price": "1.00"}
    product = ok(api.post("/products", json=made, headers=login("customer", "admin")), 201)
    path = f"/products/{product['id']}"
    for _ in range(3):
        ok(api.get(path))
    redis = gateway.containers[-1].shared_extensions[RedisConnection]
    eventually(lambda: redis.attempt(lambda client: client.ping()))
    os.kill(servers.redis.pid, signal.SIGSTOP)
    try:
        began = Stopwatch()
        with ThreadPoolExecutor(10) as pool:
            assert set(pool.map(lambda _: status_of(api, path), range(10))) == {200}
        assert began.seconds < 1.0  # one command to Redis used to take as long
        assert redis._is_unavailable
        asked = count()
        for _ in range(20):
            redis.attempt(lambda _client: next(asked))
            ok(api.get(path))
        assert next(asked) == 0
    finally:
        os.kill(servers.redis.pid, signal.SIGCONT)
    eventually(lambda: redis.attempt(lambda client: client.ping()))


def status_of(api, path):
    return httpx.get(f"{api.base_url}{path}", verify=False, timeout=60).status_code
