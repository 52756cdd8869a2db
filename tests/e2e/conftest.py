"""The real processes over HTTP, on the real servers, with the demo seed in them."""

import math
import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from contracts.services import PROCESSES, SERVICES
from deploy import seed
from deploy.local import ports, unprivileged
from deploy.local.process import StartError
from deploy.local.suite import Suite
from qa.support.client import ADMIN, CUSTOMER, Client, log_in
from qa.support.consistency import await_rest, database_urls, report
from qa.support.free_ports import free_address
from qa.support.machine_speed import deadlines
from tests.secrets_in_logs import secrets_in
from tests.support import empty_database, eventually, purge_queues

ROOT = Path(__file__).parent.parent.parent
DEADLINE_SECONDS = 60  # long enough for a slow machine; tests of the deadline set it in the database
READY_SECONDS = 400
PASSWORD = "Demo-pass-2026!"


RUNNING = ExitStack()
TWINS = []  # at most one suite
MANY_ORDERS = {"test_crashes", "test_replicas", "test_restarts"}
FRESH_SECONDS = 300  # a third of the time for which an access token is valid


@dataclass
class Shop:
    """A running suite, and helpers for the tests."""

    suite: Suite
    servers: object
    url: str
    admin: Client
    customer: Client
    logged_in_at: float = -math.inf

    def log_in(self):
        """Renew the access tokens before they expire."""
        if time.monotonic() > self.logged_in_at + FRESH_SECONDS:
            for client, email in ((self.admin, ADMIN), (self.customer, CUSTOMER)):
                logged_in = log_in(self.url, email, PASSWORD)
                client.token, client.credentials = logged_in.token, logged_in.credentials
            self.logged_in_at = time.monotonic()

    def product(self, price="10.00", stock=100):
        """Create a product with stock (None: without a stock record)."""
        made = self.admin.must(
            "POST", "/products", {"sku": f"E2E-{os.urandom(6).hex()}", "name": "Thing", "price": price}
        )
        if stock is not None:
            self.admin.must(
                "POST", "/inventory", {"product_id": made["id"], "product_sku": made["sku"], "quantity": stock}
            )
        return made

    def client(self, token):
        """Return a client that sends this access token."""
        return Client(self.url, token)

    def order(self, *lines, client=None):
        """Place an order of (product, quantity) lines."""
        items = [{"product_id": made["id"], "quantity": quantity} for made, quantity in lines]
        return (client or self.customer).must("POST", "/orders", {"items": items})

    def get(self, path, client=None):
        """The body of a GET that must succeed."""
        return (client or self.admin).must("GET", path)

    def reaches(self, order, status, timeout=30):
        """Wait until an order has a status; returns the order."""
        return eventually(lambda: (now := self.get(f"/orders/{order['id']}"))["status"] == status and now, timeout)

    def stock(self, made):
        """(on hand, reserved) of a product."""
        row = self.get(f"/inventory/{made['id']}")
        return row["on_hand"], row["reserved"]

    def has_stock(self, made, on_hand, reserved=0):
        """Wait until a product has these quantities on hand and reserved."""
        eventually(lambda: self.stock(made) == (on_hand, reserved), timeout=20)

    def payment(self, order):
        """The payment of an order; None while there is none."""
        status, body = self.admin.request("GET", f"/payments/order/{order['id']}")
        return body if status == 200 else None

    def has_payment(self, order, status):
        """Wait until the payment of an order has a status."""
        eventually(lambda: (payment := self.payment(order)) and payment["status"] == status, timeout=20)

    def stop(self, *services):
        """Stop services. They stay down until `start`."""
        for service in services:
            self.suite.stop_service(service)

    def start(self, *services):
        """Start services that were stopped, and wait until all services are ready."""
        for service in services:
            self.suite.start_service(service)
        self.suite.wait_ready(READY_SECONDS)

    def assert_sound(self, timeout=READY_SECONDS):
        """Wait until nothing is in flight, and assert that every invariant holds."""
        checks = await_rest(database_urls(), timeout)
        assert not any(check.ids for check in checks), "\n" + report(checks)


@pytest.fixture(scope="session")
def running(servers):
    """The suite, started once for all end-to-end tests."""
    yield RUNNING.enter_context(running_suite(servers))
    RUNNING.close()  # if the last test of the run is an end-to-end test: stop the suite before the servers stop


def pytest_collection_modifyitems(items):
    """Run the tests that use the twin one after the other, so that it is started once.

    Those with many orders are the last of each half: every later check of the invariants reads all orders.
    """
    ours = [item for item in items if item.path.is_relative_to(ROOT / "tests/e2e")]
    in_order = iter(sorted(ours, key=_position))
    items[:] = [next(in_order) if item.path.is_relative_to(ROOT / "tests/e2e") else item for item in items]


def _position(item):
    return "twin" in item.fixturenames, item.path.stem in MANY_ORDERS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Stop the twin after the last test that uses it, and the suite after the last end-to-end test.

    The containers of later service tests listen on the same queues.
    """
    result = yield
    if TWINS and (nextitem is None or "twin" not in nextitem.fixturenames):
        TWINS.pop().stop()
    if nextitem is None or not nextitem.path.is_relative_to(ROOT / "tests/e2e"):
        RUNNING.close()
    return result


def service_users(servers, environment):
    """The users of the services, as in `make run`; None without root, or in a container that may not mount anything."""
    try:
        users = unprivileged.choose(PROCESSES, ROOT, servers.data)
    except StartError:
        return None
    if users:
        users.give(Path(environment["JWT_PRIVATE_KEY_FILE"]), "users")
    return users


@contextmanager
def running_suite(servers):
    """Start the suite on empty databases with the demo seed.

    At the end, check that the logs contain no secrets and that Redis refused no command.
    """
    for service in SERVICES:
        empty_database(service)
    purge_queues()
    address = free_address()
    limits = deadlines()
    Client.response_seconds = 2 * float(limits["HTTP_DEADLINE_SECONDS"])
    environment = servers.environment | {
        "GATEWAY_ADDRESS": address,
        **limits,
        "ORDER_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
        "RETRY_DELAYS_MS": "[200, 400, 800, 1600, 3200]",
        **ports.metrics_addresses(servers.data, PROCESSES),
    }
    cache = redis.Redis.from_url(environment["REDIS_URL"])
    cache.acl_log_reset()
    users = service_users(servers, environment)
    suite = Suite(environment, log_dir=servers.data / "suite/log", users=users)  # one for each worker of tests/run.py
    suite.start()
    suite.wait_ready(READY_SECONDS)
    seed.run(say=lambda _line: None)
    url = f"http://{address}"
    shop = Shop(suite, servers, url, Client(url), Client(url))
    try:
        shop.log_in()
        yield shop
    finally:
        suite.stop()
    assert secrets_in(servers.data / "suite/log", PASSWORD) == []
    # A newer Redis has the command CLIENT SETINFO, which the client library sends and our users may not call.
    assert [one for one in cache.acl_log() if one["object"] != "client|setinfo"] == []


@pytest.fixture
def twin(shop):
    """A second process of every service, with the same queues, databases and port, shared by the tests that use it.

    It has the same users, because processes of different users cannot share a port.
    """
    if not TWINS:
        TWINS.append(Suite(shop.suite.env, log_dir=shop.servers.data / "twin/log", users=shop.suite.users))
        TWINS[0].start()
    (twin,) = TWINS
    for service in PROCESSES:
        ready = " routes" if service == "gateway" else "listening on RabbitMQ"
        eventually(lambda service=service, ready=ready: ready in twin.log(service).read_text())
        eventually(lambda service=service: twin.pid(service))  # the previous test may have killed it
    return twin


@pytest.fixture
def shop(running):
    """The running suite. Services that the test has stopped are started again after it."""
    running.log_in()
    yield running
    for service in PROCESSES:
        running.suite.start_service(service)
    running.suite.wait_ready(READY_SECONDS)
