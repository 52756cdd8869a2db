"""Orders under load while every service is killed and the broker is restarted: all invariants must hold at the end."""

import signal
import threading
from collections import Counter

import sqlalchemy

from contracts.services import PROCESSES
from qa.load import place_orders, plan
from qa.support.client import Client, make_products, place
from tests.e2e.conftest import READY_SECONDS
from tests.support import database, eventually

ORDERS = 500


def run_load(shop, orders, disturb):
    """Place orders while `disturb()` runs in another thread; returns the result of the load."""
    bodies = plan(orders, make_products(shop.admin), seed=1)
    disturber = threading.Thread(target=disturb, daemon=True)
    disturber.start()
    result = place_orders(shop.url, shop.customer, bodies, clients=16)
    disturber.join(timeout=600)
    assert not disturber.is_alive()
    shop.suite.wait_ready(READY_SECONDS)
    return result


def stored_orders(shop):
    """Return the number of stored orders."""
    with database("orders").connect() as connection:
        return connection.scalar(sqlalchemy.text("SELECT count(*) FROM orders"))


def assert_all_settled(shop, result, orders):
    assert not result.refused, result.refused
    assert len(result.accepted) == orders
    assert max(Counter(result.accepted).values()) == 1
    shop.assert_sound()


def test_every_order_survives_kills_of_every_service_and_a_restart_of_the_broker(shop):
    before = stored_orders(shop)

    def disturb():
        for number, service in enumerate(PROCESSES, start=1):
            eventually(lambda number=number: stored_orders(shop) >= before + number * ORDERS // 10, timeout=600)
            shop.suite.kill(service, signal.SIGKILL)
        eventually(lambda: stored_orders(shop) >= before + 8 * ORDERS // 10, timeout=600)
        shop.servers.rabbitmq.restart()

    result = run_load(shop, ORDERS, disturb)
    assert_all_settled(shop, result, ORDERS)
    assert stored_orders(shop) == before + ORDERS  # repeated requests created no second order


def test_fifty_requests_with_one_key_create_one_order_while_orders_is_killed(shop, twin):
    body = {"items": [{"product_id": shop.product()["id"], "quantity": 1}]}
    before, outcomes = stored_orders(shop), []

    def send():
        client = Client(shop.url, shop.customer.token)
        outcomes.append(place(client, body, key="fifty-times-one-order"))
        client.close()

    threads = [threading.Thread(target=send) for _ in range(50)]
    for number, thread in enumerate(threads):
        thread.start()
        if number in (10, 30):
            (shop.suite, twin)[number == 30].kill("orders", signal.SIGKILL)
    for thread in threads:
        thread.join(timeout=600)
    assert {status for status, *_ in outcomes} == {201}
    assert len({order["id"] for _, order, *_ in outcomes}) == 1
    assert stored_orders(shop) == before + 1
    shop.assert_sound()
