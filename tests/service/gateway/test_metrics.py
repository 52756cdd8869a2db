"""The metrics of all services after three orders: one confirmed, one too expensive, one cancelled."""

import re
from pathlib import Path

import pytest
from nameko import config

from contracts.services import PROCESSES
from qa.support.free_ports import free_ports
from tests.scrape import Scrape
from tests.service.gateway.responses import bearer, ok
from tests.support import eventually

DOCS = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
AN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-")


@pytest.fixture
def api(own_api):
    return own_api


@pytest.fixture(autouse=True)
def ports(servers):
    """The metrics port of each service, configured before any of them starts."""
    ports = dict(zip(PROCESSES, free_ports(len(PROCESSES)), strict=True))
    addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    with config.patch({"METRICS_ADDRESSES": addresses, "CATALOG_PROMPT_SECONDS": 4.0}):
        yield ports


@pytest.fixture
def orders_placed(api, admin, session, product):
    """One order that was confirmed, one whose payment failed, and one that was confirmed and then cancelled."""
    customer = bearer(session)
    expensive = {"sku": "DEAR", "name": "Dear", "price": "10001.00"}
    expensive = ok(api.post("/products", json=expensive, headers=admin), 201)
    stock = {"product_id": expensive["id"], "product_sku": "DEAR", "quantity": 1}
    ok(api.post("/inventory", json=stock, headers=admin), 201)

    def order(thing):
        lines = {"items": [{"product_id": thing["id"], "quantity": 1}]}
        return ok(api.post("/orders", json=lines, headers=customer), 201)

    def becomes(order, status):
        return eventually(lambda: ok(api.get(f"/orders/{order['id']}", headers=customer))["status"] == status)

    confirmed, cancelled, failed = order(product), order(product), order(expensive)
    becomes(failed, "CANCELLED")
    becomes(confirmed, "CONFIRMED")
    becomes(cancelled, "CONFIRMED")
    ok(api.post(f"/orders/{cancelled['id']}/cancel", headers=customer), 202)
    eventually(lambda: ok(api.get("/admin/sagas", headers=admin))["items"] == [])


def test_each_service_counts_its_own_events(orders_placed, ports, api):
    orders, gateway, payments, inventory = (
        Scrape(ports[name]) for name in ("orders", "gateway", "payments", "inventory")
    )
    decided = "suite_orders_decided_total"
    assert orders(decided, decision="confirmed") == 2
    assert orders(decided, decision="cancelled", reason="PAYMENT_FAILED") == 1
    assert orders(decided, decision="cancelled", reason="USER") == 1
    assert orders(decided, decision="cancelled", reason="TIMEOUT") == 0
    assert orders("suite_order_decision_seconds_count", decision="confirmed") == 2
    assert orders("suite_order_decision_seconds_count", decision="cancelled") == 1  # not the one by the user
    assert 0 < orders("suite_order_decision_seconds_sum") < 3 * 30

    assert gateway("suite_http_requests_total", method="POST", route="/orders", status="201") == 3
    assert gateway("suite_http_request_seconds_count", method="POST", route="/orders") == 3
    assert gateway("suite_rpc_called_seconds_count", service="orders", method="create_order", outcome="ok") == 3
    assert orders("suite_rpc_served_seconds_count", method="create_order", outcome="ok") == 3
    # Once for each product: orders has local copies.
    assert orders("suite_rpc_called_seconds_count", service="catalog", method="get_products", outcome="ok") == 2

    created_and_decided_and_cancelled = 3 + 3 + 1
    assert inventory("suite_events_handled_total", handler="on_orders") == created_and_decided_and_cancelled
    batches = inventory("suite_events_batch_size_count", handler="on_orders")
    assert 3 <= batches <= created_and_decided_and_cancelled  # the events of one order need several batches
    assert inventory("suite_events_batch_size_sum", handler="on_orders") == created_and_decided_and_cancelled
    assert inventory("suite_events_batch_seconds_count", handler="on_orders") == batches
    assert inventory("suite_events_age_seconds_count", handler="on_orders") == batches
    assert 0 < inventory("suite_events_age_seconds_sum", handler="on_orders") < 30
    assert inventory("suite_events_failed_total") == 0

    assert orders("suite_outbox_relayed_total", event="order.created") == 3
    assert payments("suite_outbox_relayed_total", event="payment.authorized") == 2
    assert payments("suite_outbox_relayed_total", event="payment.failed") == 1
    assert orders("suite_cache_reads_total", kind="order", result="miss") > 0
    assert orders("suite_redis_available") == 1
    assert orders("suite_database_connections_in_use") >= 0


def test_refused_and_failed_calls_are_counted_separately(api, admin, product, ports):
    order = "018f2b9e-0000-7000-8000-000000000001"
    assert api.get(f"/orders/{order}", headers=admin).status_code == 404
    assert Scrape(ports["orders"])("suite_rpc_served_seconds_count", method="get_order", outcome="refused") == 1
    called = {"service": "orders", "method": "get_order"}
    assert Scrape(ports["gateway"])("suite_rpc_called_seconds_count", outcome="refused", **called) == 1
    assert Scrape(ports["gateway"])("suite_rpc_called_seconds_count", outcome="failed") is None


def test_label_values_are_bounded_and_every_metric_is_documented(orders_placed, ports):
    for name in PROCESSES:
        scrape = Scrape(ports[name])
        assert not [value for value in scrape.label_values if AN_ID.search(value)]
        assert len(scrape.samples) < 3000
        families = {family.name + ("_total" if family.type == "counter" else "") for family in scrape.families}
        undocumented = {one for one in families if one.startswith("suite_") and f"`{one}`" not in DOCS}
        assert undocumented == set()


def test_the_public_port_serves_no_metrics(api):
    assert api.get("/metrics").status_code == 404
