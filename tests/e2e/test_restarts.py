"""Restarts of services under load: no request is lost, even if clients never retry, and none is executed twice."""

import sqlalchemy

from contracts.services import PROCESSES
from tests.e2e.strict import Traffic
from tests.stopwatch import Stopwatch
from tests.support import database, eventually

GRACE = 15.0


def restart(suite, name):
    """Stop a service gracefully and start it again. Returns when it listens for requests or messages."""
    log = suite.log(name)
    ready = "with" if name == "gateway" else "listening on RabbitMQ"
    before = times(log, ready)
    began = Stopwatch()
    suite.stop_service(name, grace=4 * GRACE)
    assert began.seconds < GRACE, f"{name} did not end by itself"
    suite.start_service(name)
    eventually(lambda: times(log, ready) > before, timeout=30)


def times(log, words):
    """The number of log lines that report that the service listens."""
    return sum("listening on" in line and words in line for line in log.read_text().splitlines())


def order_ids():
    """The ids of all stored orders."""
    with database("orders").connect() as connection:
        return {str(key) for key in connection.scalars(sqlalchemy.text("SELECT id FROM orders"))}


def ordering(made):
    """Return a function that places one order without an idempotency key."""
    body = {"items": [{"product_id": made["id"], "quantity": 1}]}
    return lambda client: client.request("POST", "/orders", body)


def assert_nothing_lost(shop, traffic, before):
    """Every request created exactly one order, and its client got the response."""
    assert set(traffic.outcomes) == {201}, traffic.outcomes
    assert {body["id"] for body in traffic.bodies_with(201)} == order_ids() - before
    shop.assert_sound()


def test_a_rolling_restart_of_all_services_fails_no_request_and_creates_no_extra_order(shop, twin):
    pen = shop.product(stock=100_000)
    before = order_ids()
    with Traffic(shop.url, shop.customer.token, ordering(pen), pause=1.0) as traffic:
        for name in PROCESSES:
            restart(shop.suite, name)
        twin.stop()  # the second processes stop and stay down
        traffic.goes_on(20)
    assert_nothing_lost(shop, traffic, before)


def test_a_restart_of_the_only_gateway_refuses_new_connections_but_aborts_none(shop):
    pen = shop.product(stock=100_000)
    before = order_ids()
    with Traffic(shop.url, shop.customer.token, ordering(pen), clients=8, pause=0.02) as traffic:
        for _ in range(2):
            traffic.goes_on(50)
            restart(shop.suite, "gateway")
    assert_nothing_lost(shop, traffic, before)
