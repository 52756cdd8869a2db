"""Overload: requests are slowed, then refused fast and without effect, until the cause has ended."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
import sqlalchemy

from tests.stopwatch import Stopwatch
from tests.support import TEST_TIMEOUT_SECONDS, database, eventually

LIMIT = 5
CALLERS = 60
AT_ONCE_SECONDS = 0.25  # for the fastest of several refusals, because the machine may be busy
RECOVERY_SECONDS = 10
SLACK = 2.0  # seconds, for a busy machine


@pytest.fixture(scope="module")
def only_few_undecided(running):
    """At most LIMIT orders may be undecided in these tests."""

    def restart_orders():
        running.stop("orders")
        running.start("orders")

    running.suite.env["MAX_UNDECIDED_ORDERS"] = str(LIMIT)
    restart_orders()
    yield
    del running.suite.env["MAX_UNDECIDED_ORDERS"]
    restart_orders()


@dataclass
class Response:
    """A response, and the seconds that it took."""

    status: int
    body: dict
    retry_after: str | None
    seconds: float


def post_order(shop, made):
    """Order one piece, over a new connection."""
    connection = http.client.HTTPConnection(urlsplit(shop.url).netloc, timeout=TEST_TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {shop.customer.token}"}
    began = Stopwatch()
    connection.request("POST", "/orders", json.dumps({"items": [{"product_id": made["id"], "quantity": 1}]}), headers)
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    return Response(response.status, body, response.headers["Retry-After"], began.seconds)


def is_alive(shop):
    return shop.get("/health/live") == {"status": "ok"}


def orders_of(made):
    with database("orders").connect() as connection:
        count = sqlalchemy.text("SELECT count(*) FROM order_items WHERE product_id = :id")
        return connection.scalar(count, {"id": made["id"]})


def test_all_requests_get_a_response_in_time_while_every_database_connection_is_blocked(shop):
    pen = shop.product(stock=1000)
    with database("orders").connect() as connection:
        connection.execute(sqlalchemy.text("LOCK TABLE orders"))
        with ThreadPoolExecutor(max_workers=CALLERS) as pool:
            responses = list(pool.map(lambda _: post_order(shop, pen), range(CALLERS)))
        assert {(response.status, response.body["code"]) for response in responses} <= {
            (503, "SERVICE_UNAVAILABLE"),
            (504, "UPSTREAM_TIMEOUT"),
        }
        assert max(response.seconds for response in responses) < float(shop.suite.env["HTTP_DEADLINE_SECONDS"]) + SLACK
        assert all(response.retry_after for response in responses if response.status == 503)
        assert is_alive(shop)
        assert shop.get(f"/products/{pen['id']}")["id"] == pen["id"]  # the other services are not affected
        connection.rollback()
    eventually(lambda: post_order(shop, pen).status == 201, timeout=RECOVERY_SECONDS, pause=0.2)
    shop.assert_sound()


@pytest.mark.usefixtures("only_few_undecided")
def test_when_too_many_orders_are_undecided_the_next_is_refused_until_they_are_decided(shop):
    pen = shop.product(stock=1000)
    shop.stop("payments")
    taken = [post_order(shop, pen) for _ in range(LIMIT)]
    assert [response.status for response in taken] == [201] * LIMIT
    with ThreadPoolExecutor(max_workers=10) as pool:  # these wait in vain, and the next ones are refused at once
        refusals = list(pool.map(lambda _: post_order(shop, pen), range(10)))
    refusals += [post_order(shop, pen) for _ in range(10)]
    for refusal in refusals:
        assert (refusal.status, refusal.body["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert "Nothing was done" in refusal.body["detail"]
        assert int(refusal.retry_after) > 0
    assert min(refusal.seconds for refusal in refusals) < AT_ONCE_SECONDS
    assert orders_of(pen) == LIMIT
    assert is_alive(shop)
    assert shop.get(f"/orders/{taken[0].body['id']}")["status"] == "CREATED"
    shop.start("payments")
    eventually(lambda: post_order(shop, pen).status == 201, timeout=RECOVERY_SECONDS, pause=0.2)
    shop.assert_sound()


@pytest.mark.usefixtures("only_few_undecided")
def test_a_closed_loop_without_pauses_is_slowed_and_never_refused(shop):
    """More clients than orders may be undecided. Before there was a line, all but LIMIT of them were refused."""
    pen = shop.product(stock=1000)
    clients, orders_of_each = LIMIT + 3, 4

    def client(_):
        return [post_order(shop, pen).status for _ in range(orders_of_each)]

    with ThreadPoolExecutor(max_workers=clients) as pool:
        statuses = [status for those in pool.map(client, range(clients)) for status in those]
    assert statuses == [201] * clients * orders_of_each
    shop.assert_sound()


@pytest.mark.usefixtures("only_few_undecided")
def test_no_order_is_refused_while_notifications_is_down(shop):
    pen = shop.product(stock=1000)
    shop.stop("notifications")
    for _ in range(LIMIT + 3):
        shop.reaches(shop.order((pen, 1)), "CONFIRMED")
    shop.start("notifications")
    shop.assert_sound()
