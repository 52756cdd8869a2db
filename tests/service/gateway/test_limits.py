"""Nobody takes all there is: neither one user nor those who log in."""

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
    """Stands in for the other services."""
    services = Mock()
    services.users.list_changed = lambda _seconds: {"items": []}
    services.orders.list_orders.return_value = PAGE
    return services


def hang(seconds):
    def answer(**_arguments):
        eventlet.sleep(seconds)
        return PAGE

    return answer


def all_at_once(api, count, method, path, **request):
    """The answers of so many requests, each on a connection of its own."""
    together = threading.Barrier(count)
    limits = httpx.Limits(max_connections=count)
    with httpx.Client(base_url=api.base_url, timeout=10, limits=limits) as client, ThreadPoolExecutor(count) as pool:

        def ask(_):
            together.wait()
            return client.request(method, path, **request)

        return list(pool.map(ask, range(count)))


def test_one_user_may_have_256_requests_under_way(gateway, services, login):
    services.orders.list_orders.side_effect = hang(0.02)
    api = gateway(services=services)
    answers = all_at_once(api, 256, "GET", "/orders", headers=login("customer"))
    assert {answer.status_code for answer in answers} == {200}


def test_one_user_alone_is_held_back(gateway, services, login):
    services.orders.list_orders.side_effect = hang(1)
    with config.patch({"HTTP_MAX_REQUESTS_PER_USER": {"elsewhere": 3}}):
        api = gateway(services=services)
    one, other = login("customer", user_id=new_id()), login("customer", user_id=new_id())
    answers = all_at_once(api, 8, "GET", "/orders", headers=one)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("RATE_LIMITED", "1")
    assert refused.headers["ratelimit-policy"] == '"at_once";q=3;qu="concurrent-requests"'
    assert refused.headers["ratelimit"] == '"at_once";r=0'
    services.orders.list_orders.side_effect = None
    assert {api.get("/orders", headers=user).status_code for user in (one, other)} == {200}


def test_those_who_log_in_do_not_hold_up_those_who_order(gateway, services, login):
    """Two hundred logins, each of which takes its worker for as long as it may: the others have workers of theirs."""
    services.users.login.side_effect = hang(4)
    api = gateway(services=services)
    storm = threading.Thread(target=all_at_once, args=(api, 200, "POST", "/users/login"), kwargs={"json": CREDENTIALS})
    storm.start()
    eventually(lambda: services.users.login.call_count >= 4)
    started = Stopwatch()
    for _ in range(20):
        assert api.get("/orders", headers=login("customer")).status_code == 200
        assert api.get("/health/live").status_code == 200
    assert started.seconds < 3  # in the queue of the logins the first alone would wait for longer
    storm.join()
    assert services.users.login.call_count <= 12
