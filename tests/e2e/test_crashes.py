"""A load of orders while every service is killed and the broker restarted: the books must balance to the last unit."""

import signal
import threading
from collections import Counter

from contracts.services import PROCESSES
from qa.load import place_orders, plan
from qa.support.client import Client, make_products, place
from qa.support.consistency import database_urls
from tests.e2e.conftest import READY_SECONDS
from tests.support import eventually


def run_load(shop, orders, disturb):
    """Place orders while `disturb(result)` is at work; returns the result."""
    bodies = plan(orders, make_products(shop.admin), seed=1)
    disturber = threading.Thread(target=disturb, daemon=True)
    disturber.start()
    result = place_orders(shop.url, shop.customer.token, bodies, clients=16)
    disturber.join(timeout=600)
    assert not disturber.is_alive()
    shop.suite.wait_ready(READY_SECONDS)
    return result


def placed(shop):
    """How many orders there are."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(database_urls()["orders"], poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return connection.scalar(sqlalchemy.text("SELECT count(*) FROM orders"))


def assert_all_settled(shop, result, orders):
    assert not result.refused, result.refused
    assert len(result.accepted) == orders
    assert max(Counter(result.accepted).values()) == 1
    shop.assert_sound()


def test_a_thousand_orders_with_every_service_killed_and_the_broker_restarted(shop):
    before = placed(shop)

    def disturb():
        for number, service in enumerate(PROCESSES, start=1):
            eventually(lambda number=number: placed(shop) >= before + number * 100, timeout=600)
            shop.suite.kill(service, signal.SIGKILL)
        eventually(lambda: placed(shop) >= before + 800, timeout=600)
        shop.servers.rabbitmq.restart()

    result = run_load(shop, 1000, disturb)
    assert_all_settled(shop, result, 1000)
    assert placed(shop) == before + 1000  # a repeated request made no second order


def test_fifty_requests_with_one_key_make_one_order_though_its_service_is_killed(shop, twin):
    body = {"items": [{"product_id": shop.product()["id"], "quantity": 1}]}
    before, answers = placed(shop), []

    def send():
        client = Client(shop.url, shop.customer.token)
        answers.append(place(client, body, key="fifty-times-one-order"))
        client.close()

    threads = [threading.Thread(target=send) for _ in range(50)]
    for number, thread in enumerate(threads):
        thread.start()
        if number in (10, 30):
            (shop.suite, twin)[number == 30].kill("orders", signal.SIGKILL)
    for thread in threads:
        thread.join(timeout=600)
    assert {status for status, *_ in answers} == {201}
    assert len({order["id"] for _, order, *_ in answers}) == 1
    assert placed(shop) == before + 1
    shop.assert_sound()
