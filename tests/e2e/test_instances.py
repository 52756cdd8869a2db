"""Two gateways on one port, three processes of orders, two of each other service: every order is consistent."""

import itertools
import random
import threading
import time

import pytest

from deploy.local.suite import Suite
from qa.support.client import Client, place
from tests.e2e.conftest import ROOT
from tests.support import eventually

CLIENTS, EACH = 8, 12
# The possible next statuses of each status.
STEPS = {"CREATED": {"CONFIRMED", "CANCELLED"}, "CONFIRMED": {"CANCELLED"}, "CANCELLED": set()}
STOCK = ("PENDING", "RESERVED", "COMMITTED", "RELEASED", "RETURNED", "FAILED")


@pytest.fixture
def third_orders(shop):
    """A third process of orders."""
    suite = Suite(shop.suite.env, log_dir=ROOT / "var/test-third/log", services=("orders",))
    suite.start()
    eventually(lambda: "listening on RabbitMQ" in suite.log("orders").read_text(), timeout=30)
    yield suite
    suite.stop()


def shop_around(shop, products, seed, seen, problems):
    """Place orders, cancel some of them at random times, and read each several times."""
    chance, client = random.Random(seed), Client(shop.url, shop.customer.token)
    try:
        for _ in range(EACH):
            body = {"items": [{"product_id": one["id"], "quantity": 1} for one in chance.sample(products, 2)]}
            status, order, _, _ = place(client, body)
            assert status == 201, (status, order)
            history = seen[order["id"]] = [order]
            cancel_at = chance.choice((0, 1, 3, None, None))
            for look in range(6):
                if look == cancel_at:
                    status, response = client.request("POST", f"/orders/{order['id']}/cancel")
                    assert status == 202, (status, response)
                    history.append(response)
                status, response = client.request("GET", f"/orders/{order['id']}")
                assert status == 200, (status, response)
                history.append(response)
                time.sleep(chance.uniform(0, 0.05))
    except Exception as error:  # noqa: BLE001  (the main thread reports it)
        problems.append(repr(error))
    finally:
        client.close()


def redis_outages(*suites):
    """How often instances could not reach Redis. Another instance may then have read an outdated order for a moment."""
    return sum(suite.log("orders").read_text().count("Redis is unavailable") for suite in suites)


def assert_never_goes_back(history):
    """Check the successive responses that one client got for one order."""
    for before, after in itertools.pairwise(history):
        assert after["version"] >= before["version"], history
        if after["version"] == before["version"]:
            assert after == before, history
        if after["status"] != before["status"]:
            assert after["status"] in STEPS[before["status"]] | reached_from(before["status"]), history


def reached_from(status):
    """The statuses that an order can reach in one or more steps."""
    found, waiting = set(), [status]
    while waiting:
        for step in STEPS[waiting.pop()] - found:
            found.add(step)
            waiting.append(step)
    return found


def assert_timeline_is_legal(timeline, order):
    """Check that an order was created first, confirmed at most once, and not confirmed after a cancellation."""
    events = [entry["event"] for entry in timeline]
    own = [event for event in events if event.startswith("order.")]
    expected = {
        "CONFIRMED": [["order.created", "order.confirmed"]],
        "CANCELLED": [["order.created", "order.cancelled"], ["order.created", "order.confirmed", "order.cancelled"]],
    }
    assert own in expected[order["status"]], events
    assert events[0] == "order.created"
    assert len(set(events)) == len(events), events
    assert [entry["at"] for entry in timeline] == sorted(entry["at"] for entry in timeline)


def test_every_order_is_consistent_with_several_instances(shop, twin, third_orders):
    products = [shop.product(stock=200) for _ in range(4)]
    instances = (shop.suite, twin, third_orders)
    seen, problems, outages = {}, [], redis_outages(*instances)
    buyers = [
        threading.Thread(target=shop_around, args=(shop, products, seed, seen, problems)) for seed in range(CLIENTS)
    ]
    for buyer in buyers:
        buyer.start()
    for buyer in buyers:
        buyer.join(timeout=600)
    assert problems == []
    assert len(seen) == CLIENTS * EACH
    shop.assert_sound()
    cache_was_right = redis_outages(*instances) == outages
    for key, history in seen.items():
        now = shop.get(f"/orders/{key}")
        assert_never_goes_back([*history, now] if cache_was_right else [history[0], now])
        assert_timeline_is_legal(shop.get(f"/orders/{key}/timeline")["items"], now)
    statuses = {shop.get(f"/orders/{key}")["status"] for key in list(seen)[:50]}
    assert statuses == {"CONFIRMED", "CANCELLED"}
    for suite in (shop.suite, twin):
        assert "POST /orders 201" in suite.log("gateway").read_text()
