"""Metrics of the real processes: each process serves its own, also if a service has two processes."""

import httpx

from contracts.services import PROCESSES
from extensions.observability.metrics import addresses
from tests.scrape import Scrape
from tests.support import eventually


def listening(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def processes(shop, service):
    """The metrics of each process of a service."""
    setting = shop.suite.env[f"{service.upper()}_METRICS_ADDRESS"]
    return [Scrape(port) for _, port in addresses(setting) if listening(port)]


def test_every_process_serves_its_own_metrics_and_an_order_is_counted_once(shop, twin):
    for service in PROCESSES:
        two = eventually(lambda service=service: len(found := processes(shop, service)) == 2 and found, timeout=30)
        assert [scrape("suite_service_info", service=service) for scrape in two] == [1, 1]
        assert len({scrape("process_start_time_seconds") for scrape in two}) == 2
        assert all(scrape("process_resident_memory_bytes") > 10e6 for scrape in two)

    def confirmed():
        return sum(scrape("suite_orders_decided_total", decision="confirmed") for scrape in processes(shop, "orders"))

    product, before = shop.product(stock=10), confirmed()
    for order in [shop.order((product, 1)) for _ in range(5)]:
        shop.reaches(order, "CONFIRMED")
    eventually(lambda: confirmed() == before + 5)
