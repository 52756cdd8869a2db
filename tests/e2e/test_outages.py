"""A server fails under traffic and is restarted: responses stay fast and correct, and the services recover."""

import http.client
import re
import signal
import threading
from contextlib import suppress
from http.client import HTTPException
from uuid import uuid4

import pytest
import redis
import sqlalchemy

from contracts.services import PROCESSES, SERVICES
from deploy.healthcheck import parts_down
from deploy.local.suite import Suite
from qa.support.client import Client
from tests.e2e.conftest import READY_SECONDS, ROOT
from tests.e2e.strict import Traffic
from tests.support import database, eventually

RECEIVING = "RabbitMQ is unavailable for consuming"  # each of a process's connections logs its own tries
SLACK = 3.0  # for a busy machine
BACK_WITHIN = 30.0


def shopping(made, customer):
    """Return a function that sends one request: it places an order, or reads the last one."""
    body = {"items": [{"product_id": made["id"], "quantity": 1}]}
    known = []

    def send(client):
        if known and uuid4().int % 3 == 0:
            return client.request("GET", f"/orders/{known[-1]}")
        status, response = client.request("POST", "/orders", body)
        if status == 201:
            known.append(response["id"])
        return status, response

    return send


class Logs:
    """The log lines of the services since this object was created."""

    def __init__(self, suite):
        self._suite = suite
        self._read = {name: len(suite.log(name).read_text()) for name in PROCESSES}

    def of(self, name):
        return self._suite.log(name).read_text()[self._read[name] :]


def ready(shop):
    """The status and the body of GET /health/ready; a kept connection may have been closed in the meantime."""
    try:
        return shop.admin.request("GET", "/health/ready")
    except (OSError, HTTPException):
        return shop.admin.request("GET", "/health/ready")


def says_not_ready(shop, part):
    """Wait until /health/ready names the part without which the gateway can serve nobody."""

    def named():
        status, body = ready(shop)
        return status == 503 and any(part in error["field"] for error in body["errors"]) and body

    return eventually(named, timeout=20)


def says_degraded(shop, part):
    """Wait until /health/ready names a part of a service that is down."""

    def named():
        status, body = ready(shop)
        return status == 200 and body["status"] == "degraded" and part in parts_down(body)

    return eventually(named, timeout=20)


def is_back(shop):
    """Wait until every service is ready."""

    def all_up():
        status, body = ready(shop)
        return status == 200 and not parts_down(body)

    eventually(all_up, timeout=BACK_WITHIN, pause=0.2)


def assert_responses_are_correct(shop, traffic):
    """All requests got a response within the deadline: success, 503 (not done) or 504 (unknown)."""
    assert set(traffic.outcomes) <= {200, 201, 503, 504}, traffic.outcomes
    assert traffic.outcomes[503] + traffic.outcomes[504] > 0, "the outage was not noticed"
    assert traffic.slowest < float(shop.suite.env["HTTP_DEADLINE_SECONDS"]) + SLACK


def pauses(text, what):
    """The pauses between tries that a log contains."""
    return [float(pause) for pause in re.findall(rf"{what} .*next try in ([\d.]+) s", text)]


def test_the_suite_recovers_after_an_outage_of_the_broker(shop):
    pen, logs = shop.product(stock=100_000), Logs(shop.suite)
    with Traffic(shop.url, shop.customer.token, shopping(pen, shop.customer)) as traffic:
        traffic.goes_on(20)
        shop.servers.rabbitmq.kill()
        problem = says_not_ready(shop, "broker")
        assert problem["detail"] == "Not ready: broker is down"
        eventually(lambda: all(len(pauses(logs.of(name), RECEIVING)) >= 4 for name in PROCESSES), timeout=20)
        shop.servers.rabbitmq.start()
        is_back(shop)
        traffic.goes_on(20)
    assert_responses_are_correct(shop, traffic)
    for name in PROCESSES:
        assert "listening on RabbitMQ" in logs.of(name), name
        grown = pauses(logs.of(name), RECEIVING)
        assert grown[:4] == sorted(grown[:4]), (name, grown)
        assert grown[3] > grown[0] * 2, (name, grown)
    assert len({tuple(pauses(logs.of(name), RECEIVING)) for name in SERVICES}) > 1, "no jitter"
    shop.reaches(shop.order((pen, 1)), "CONFIRMED")
    shop.assert_sound()


def test_the_suite_recovers_after_an_outage_of_the_database(shop):
    pen, logs = shop.product(stock=100_000), Logs(shop.suite)
    with Traffic(shop.url, shop.customer.token, shopping(pen, shop.customer)) as traffic:
        traffic.goes_on(20)
        shop.servers.postgres.kill()
        says_degraded(shop, "orders.database")
        eventually(lambda: len(pauses(logs.of("orders"), "the outbox waits for PostgreSQL")) >= 2, timeout=20)
        eventually(lambda: all("the outbox waits for PostgreSQL" in logs.of(name) for name in SERVICES), timeout=30)
        shop.servers.postgres.start()
        is_back(shop)
        traffic.goes_on(20)
    assert_responses_are_correct(shop, traffic)
    for name in SERVICES:
        eventually(lambda name=name: "PostgreSQL is available again" in logs.of(name), timeout=BACK_WITHIN)
    shop.reaches(shop.order((pen, 1)), "CONFIRMED")
    shop.assert_sound()


def test_without_redis_everything_works(shop):
    pen, logs = shop.product(stock=100_000), Logs(shop.suite)
    with Traffic(shop.url, shop.customer.token, shopping(pen, shop.customer)) as traffic:
        traffic.goes_on(20)
        shop.servers.redis.kill()
        eventually(lambda: ready(shop)[1]["status"] == "degraded")
        shop.reaches(shop.order((pen, 1)), "CONFIRMED")
        traffic.goes_on(20)
        shop.servers.redis.start()
        eventually(lambda: ready(shop)[1]["status"] == "ok", timeout=BACK_WITHIN)
    assert set(traffic.outcomes) == {200, 201}, traffic.outcomes
    eventually(lambda: "Redis is unavailable" in logs.of("orders") and "Redis is back" in logs.of("orders"))
    shop.assert_sound()


def first_entry(shop, order):
    """What the timeline says about the creation of an order."""
    return shop.get(f"/orders/{order['id']}/timeline")["items"][0]["data"]


def test_known_products_are_ordered_while_catalog_is_frozen(shop):
    pen, unknown = shop.product(stock=1000), shop.product(stock=1000)
    engine = database("orders")
    shop.reaches(shop.order((pen, 1)), "CONFIRMED")

    def replicas():
        with engine.connect() as connection:
            found = "SELECT count(*) FROM product_replicas WHERE id = ANY(CAST(:ids AS uuid[]))"
            return connection.scalar(sqlalchemy.text(found), {"ids": [pen["id"], unknown["id"]]})

    eventually(lambda: replicas() == 2)  # by their events
    with engine.begin() as connection:
        too_old = "UPDATE product_replicas SET confirmed_at = confirmed_at - interval '1 day' WHERE id = :id"
        connection.execute(sqlalchemy.text(too_old), {"id": unknown["id"]})
    shop.suite.kill("catalog", signal.SIGSTOP)
    try:
        # As every change of a product does: orders forgets the copies in its memory.
        redis.Redis.from_url(shop.suite.env["REDIS_URL"]).delete("catalog:products:generation")
        order = shop.order((pen, 1))
        assert first_entry(shop, order)["prices_from"] == "replica"
        shop.reaches(order, "CONFIRMED")
        status, problem = shop.customer.request(
            "POST", "/orders", {"items": [{"product_id": unknown["id"], "quantity": 1}]}
        )
        assert (status, problem["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(shop.customer.headers["Retry-After"]) > 0
    finally:
        shop.suite.kill("catalog", signal.SIGCONT)
    eventually(lambda: "prices_from" not in first_entry(shop, shop.order((pen, 1))))
    shop.assert_sound()


@pytest.fixture
def long_deadline(shop):
    """The orders service with an order deadline that is longer than the outage."""
    shop.stop("orders")
    suite = Suite(
        shop.suite.env | {"ORDER_DEADLINE_SECONDS": "90"},
        log_dir=ROOT / "var/test-long-deadline/log",
        services=("orders",),
    )
    suite.start()
    suite.wait_ready(READY_SECONDS)
    is_back(shop)
    yield
    suite.stop()


def test_orders_stored_during_a_crash_of_the_broker_are_decided_after_its_restart(shop, long_deadline):
    pen = shop.product(stock=100)
    engine = database("orders")

    def orders_of_pen():
        with engine.connect() as connection:
            found = "SELECT order_id FROM order_items WHERE product_id = :pen ORDER BY order_id"
            return [str(key) for key in connection.scalars(sqlalchemy.text(found), {"pen": pen["id"]})]

    statuses = []
    with engine.connect() as holder:
        holder.execute(sqlalchemy.text("LOCK TABLE orders IN EXCLUSIVE MODE"))  # orders wait before their INSERT
        callers = [threading.Thread(target=post, args=(shop, pen, statuses)) for _ in range(2)]
        for waiting, caller in enumerate(callers, start=1):  # one by one: concurrent orders share one transaction
            caller.start()
            eventually(lambda waiting=waiting: waiting_for_a_lock(engine) == waiting)
        shop.servers.rabbitmq.kill()
        holder.rollback()
    in_time, expired = eventually(lambda: len(orders_of_pen()) == 2 and orders_of_pen(), timeout=20)
    with engine.begin() as connection:  # the deadline of one order passes during the outage
        sooner = "UPDATE orders SET deadline_at = clock_timestamp() + interval '2 seconds' WHERE id = :id"
        connection.execute(sqlalchemy.text(sooner), {"id": expired})
    for caller in callers:
        caller.join(timeout=60)
    assert statuses == [504, 504]  # the gateway does not know whether they were stored

    def status_of(order):
        with engine.connect() as connection:
            row = "SELECT status, cancel_reason FROM orders WHERE id = :id"
            return tuple(connection.execute(sqlalchemy.text(row), {"id": order}).one())

    eventually(lambda: status_of(expired) == ("CANCELLED", "TIMEOUT"), timeout=20)
    assert status_of(in_time) == ("CREATED", None)
    shop.servers.rabbitmq.start()
    is_back(shop)
    eventually(lambda: status_of(in_time) == ("CONFIRMED", None), timeout=BACK_WITHIN)
    shop.assert_sound()
    shop.has_stock(pen, 99)


def post(shop, made, statuses):
    client = Client(shop.url, shop.customer.token)
    with suppress(OSError, http.client.HTTPException):
        status, _ = client.request("POST", "/orders", {"items": [{"product_id": made["id"], "quantity": 1}]})
        statuses.append(status)
    client.close()


def waiting_for_a_lock(engine):
    with engine.connect() as connection:
        statement = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO orders%'"
        )
        return connection.scalar(sqlalchemy.text(statement))
