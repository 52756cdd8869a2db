"""The port for metrics: which one a process takes, what it serves, and that its failures do not affect the service."""

import socket

import httpx
import nameko
import pytest
from nameko.containers import ServiceContainer
from nameko.exceptions import ConfigurationError
from nameko.extensions import DependencyProvider

from extensions.observability import metrics
from extensions.observability.metrics import Metrics, addresses
from qa.support.free_ports import free_ports
from tests.scrape import Scrape
from tests.support import eventually


class Counting(DependencyProvider):
    metrics = Metrics()

    def setup(self):
        self.counted = self.metrics.counter("things_total", "Things.", kind="good")

    def get_dependency(self, worker_ctx):
        return self.counted


class Thing:
    name = "thing"
    counting = Counting()


@pytest.fixture
def start():
    """Start a container of Thing, which stands for a process: `start("127.0.0.1:9100")`; returns it."""
    containers = []

    def start(address):
        with nameko.config.patch({"METRICS_ADDRESSES": {"thing": address}}):
            container = ServiceContainer(Thing)
            containers.append(container)
            container.start()
        return container

    yield start
    for container in containers:
        container.stop()


def of(container):
    return container.shared_extensions[Metrics]


@pytest.fixture
def ports():
    """Two consecutive free ports."""
    return free_ports(2)


def test_counters_are_served_together_with_process_metrics(start):
    container = start("127.0.0.1:0")
    next(iter(container.dependencies)).counted.inc(3)
    scrape = Scrape(eventually(lambda: of(container).port))
    assert scrape("suite_things_total", kind="good") == 3
    assert scrape("suite_service_info", service="thing") == 1
    assert scrape("suite_workers_limit") == container.max_workers
    assert scrape("suite_workers_busy") == 0
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert scrape(name) > 0


def test_other_paths_are_not_served(start):
    container = start("127.0.0.1:0")
    port = eventually(lambda: of(container).port)
    assert [
        httpx.get(f"http://127.0.0.1:{port}{path}", verify=False).status_code for path in ("/", "/admin", "/metrics/x")
    ] == [404] * 3
    assert httpx.post(f"http://127.0.0.1:{port}/metrics", verify=False).status_code == 405


@pytest.mark.parametrize("address", ["", None])
def test_without_an_address_metrics_are_counted_and_not_served(start, address):
    container = start(address)
    next(iter(container.dependencies)).counted.inc()
    assert not of(container).is_served
    assert of(container).port == 0
    assert container._managed_threads == {}


def test_each_process_takes_the_first_free_port_of_the_range(start, ports):
    one, two = (start(f"127.0.0.1:{ports[0]}-{ports[1]}") for _ in range(2))
    assert eventually(lambda: {of(one).port, of(two).port} - {0} == set(ports))


def test_a_process_without_a_free_port_works_and_serves_later(start, ports, monkeypatch, caplog):
    monkeypatch.setattr(metrics, "RETRY_SECONDS", 0.05)
    first = start(f"127.0.0.1:{ports[0]}")
    eventually(lambda: of(first).port)
    second = start(f"127.0.0.1:{ports[0]}")
    eventually(lambda: "metrics are not served" in caplog.text)
    assert not second._died.ready()
    first.stop()
    eventually(lambda: of(second).port == ports[0])
    assert Scrape(ports[0])("suite_things_total") == 0


def test_a_silent_connection_does_not_block_other_scrapes(start):
    container = start("127.0.0.1:0")
    port = eventually(lambda: of(container).port)
    with socket.create_connection(("127.0.0.1", port)):
        assert Scrape(port)("suite_things_total") == 0


@pytest.mark.parametrize("wrong", ["9100", "127.0.0.1", ":9100", "h:1-", "h:2-1", "h:70000", "h:1-70000", "a b:1"])
def test_a_malformed_address_stops_the_service_at_its_start(start, wrong):
    with pytest.raises(ConfigurationError, match="_METRICS_ADDRESS: "):
        start(wrong)


def test_addresses_are_tried_in_order():
    assert addresses("0.0.0.0:9100") == [("0.0.0.0", 9100)]
    assert addresses("localhost:9100-9102") == [("localhost", 9100), ("localhost", 9101), ("localhost", 9102)]
