"""No statement of the hot paths reads a whole table that grows with orders, products or customers.

qa/bench/paths.py calls every GET operation, and those that change data. `python -m qa.bench --only plans` compares the
rows read in two shops of different size; this test checks whether PostgreSQL can avoid reading a whole table.
"""

import contextlib

import psycopg2
import pytest

from contracts.services import SERVICES
from deploy.local.postgres import SUPERUSER
from extensions.storage import engine
from qa.bench.paths import walk
from qa.bench.stored import Stored
from qa.support import query_plans
from qa.support.client import Client
from tests.service.gateway.conftest import SERVICE_CLASSES
from tests.support import RESET, TEST_TIMEOUT_SECONDS, empty_database, eventually

ORDERS, PRODUCTS, CUSTOMERS = 2_000, 4_000, 200


@pytest.fixture
def api(own_api):
    return own_api


@pytest.fixture
def superuser(servers):
    """A function that connects as superuser: `superuser(database)`."""

    def connect(database):
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=servers.postgres.port,
            dbname=database,
            user=SUPERUSER,
            password=(servers.postgres.home / "superuser-password").read_text(),
        )
        connection.autocommit = True
        return connection

    return connect


@pytest.fixture
def explained(servers, superuser):
    """Log the plan of every statement from now on; returns a function that reads the logged plans."""
    offset = servers.postgres.log.stat().st_size
    # In a small shop a sequential scan is as fast as an index, so disable it.
    with query_plans.watched(superuser, SERVICES, enable_seqscan="off"):
        yield lambda: list(query_plans.read(servers.postgres.log, offset))
    for service in SERVICES:
        empty_database(service)


@pytest.fixture
def stored(explained, api, superuser, monkeypatch):
    """Old orders in the databases of the running services."""
    monkeypatch.setattr(engine, "RESPONSE_TIMEOUT_SECONDS", 10 * TEST_TIMEOUT_SECONDS)
    stored = Stored(superuser, PRODUCTS, CUSTOMERS)
    stored.load(ORDERS, with_recent=True)
    return stored


def test_no_hot_statement_reads_a_growing_table_whole(explained, api, stored, login, run_service):
    url = str(api.base_url)
    with contextlib.closing(stored.connect("orders")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, created_at, user_id FROM orders WHERE status = 'DELIVERED' ORDER BY id LIMIT 1")
        *order, user_id = cursor.fetchone()
    customer, admin = (
        Client(url, login(*roles, user_id=user)["Authorization"].removeprefix("Bearer "))
        for roles, user in ((["customer"], user_id), (["customer", "admin"], None))
    )
    product = admin.must("POST", "/products", {"sku": "PLAN-1", "name": "Plan", "price": "12.50"})
    admin.must("POST", "/inventory", {"product_id": product["id"], "product_sku": "PLAN-1", "quantity": 1000})

    for service in SERVICES:  # one more process of each service, because timers run at the start
        with contextlib.closing(stored.connect(service)) as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM timers")
    for service in SERVICE_CLASSES:
        run_service(service)
    walk(url, customer, admin, order, product)

    eventually(lambda: {"order.delivered"} <= kinds_told(customer))
    seen = explained()
    unseen = set(SERVICES) - {one.database for one in seen}
    assert not unseen, f"no statement of {unseen} was seen: add calls of its routes to qa/bench/paths.py"
    for table in ("orders", "reservations", "payments", "notifications", "outbox", "inbox", "products", "users"):
        assert any(table in one.statement for one in seen), f"no statement reads {table}"
    whole = {
        f"{one.database}: {one.statement}": one.read_whole
        for one in seen
        if one.read_whole and RESET not in one.statement
    }
    assert whole == {}


def kinds_told(customer):
    return {one["kind"] for one in customer.must("GET", "/notifications?limit=100")["items"]}
