"""Limits on requests in flight: for one user, and for logins, which are compute-heavy."""

import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import eventlet
import httpx
import pytest
from nameko import config

from contracts.ids import new_id
from tests.stopwatch import Stopwatch
from tests.support import eventually

PAGE = {"items": [], "next_cursor": None}
CREDENTIALS = {"email": "a@example.com", "password": "a long password"}


@pytest.fixture
def services():
    """Replaces the other services."""
    services = Mock()
    services.users.list_changed = lambda **_asked: {"items": []}
    services.orders.list_orders.return_value = PAGE
    return services


def hang(seconds):
    def hanging(**_arguments):
        eventlet.sleep(seconds)
        return PAGE

    return hanging


def concurrently(api, count, method, path, **request):
    """Send `count` requests at the same time, each on its own connection. Returns the responses."""
    barrier = threading.Barrier(count)
    limits = httpx.Limits(max_connections=count)
    with (
        httpx.Client(base_url=api.base_url, timeout=10, limits=limits, verify=False) as client,
        ThreadPoolExecutor(count) as pool,
    ):

        def send(_):
            barrier.wait()
            return client.request(method, path, **request)

        return list(pool.map(send, range(count)))


def test_one_user_may_have_256_requests_in_flight(gateway, services, login):
    services.orders.list_orders.side_effect = hang(0.02)
    api = gateway(services=services)
    responses = concurrently(api, 256, "GET", "/orders", headers=login("customer"))
    assert {response.status_code for response in responses} == {200}


def test_the_quota_of_one_user_does_not_affect_another(gateway, services, login):
    services.orders.list_orders.side_effect = hang(1)
    with config.patch({"HTTP_MAX_REQUESTS_PER_USER": {"elsewhere": 3}}):
        api = gateway(services=services)
    one, other = login("customer", user_id=new_id()), login("customer", user_id=new_id())
    responses = concurrently(api, 8, "GET", "/orders", headers=one)
    assert sorted(response.status_code for response in responses) == [200] * 3 + [429] * 5
    refused = next(response for response in responses if response.status_code == 429)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("RATE_LIMITED", "1")
    assert refused.headers["ratelimit-policy"] == '"at_once";q=3;qu="concurrent-requests"'
    assert refused.headers["ratelimit"] == '"at_once";r=0'
    services.orders.list_orders.side_effect = None
    assert {api.get("/orders", headers=user).status_code for user in (one, other)} == {200}


def test_logins_do_not_delay_other_requests(gateway, services, login):
    """200 logins that occupy their workers until the deadline: other requests use other workers."""
    services.users.login.side_effect = hang(4)
    api = gateway(services=services)
    logins = threading.Thread(
        target=concurrently, args=(api, 200, "POST", "/users/login"), kwargs={"json": CREDENTIALS}
    )
    logins.start()
    eventually(lambda: services.users.login.call_count >= 4)
    started = Stopwatch()
    for _ in range(20):
        assert api.get("/orders", headers=login("customer")).status_code == 200
        assert api.get("/health/live").status_code == 200
    assert started.seconds < 3  # behind the logins, the first request alone would wait longer
    logins.join()
    assert services.users.login.call_count <= 12
    services.users.login.side_effect = None  # the gateway stops when the last of them has returned
